//! Compiles the C shim against the server's headers.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PGRX_PG_CONFIG_PATH");
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-changed=src/key_update.c");
    println!("cargo::rerun-if-changed=src/version/pg15.c");
    let pg_config = env::var("PGRX_PG_CONFIG_PATH").unwrap_or_else(|_| "pg_config".into());
    let output = Command::new(&pg_config)
        .arg("--includedir-server")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {pg_config}: {error}"));
    assert!(
        output.status.success(),
        "{pg_config} --includedir-server failed"
    );
    let include = String::from_utf8(output.stdout).expect("a path in UTF-8");
    cc::Build::new()
        .file("src/shim.c")
        .file("src/key_update.c")
        .file("src/version/pg15.c")
        // The server's headers are not ours to keep free of warnings.
        .flag(format!("-isystem{}", include.trim()))
        .flag_if_supported("-fno-strict-aliasing")
        .flag_if_supported("-fwrapv")
        .flag_if_supported("-fexcess-precision=standard")
        .flag_if_supported("-fvisibility=hidden")
        .opt_level(2)
        .compile("rowref_shim");
}
