create table :t (k bigint primary key, n bigint not null, pad text not null)
