//! The server's programs, and a staged copy of the extension for it.
//!
//! Nothing is copied to the system's directories: the extension is installed
//! below a staging directory that mirrors them, and the clusters find it
//! through Debian's `extension_destdir` and an absolute preload path.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;

/// The name under which the extension is installed and created.
pub const EXTENSION: &str = "pg_rowref";

/// A PostgreSQL installation, and where the extension is staged for it.
#[derive(Clone, Debug)]
pub struct Installation {
    /// `pg_config` of the server.
    pub pg_config: PathBuf,
    /// `pg_config --bindir`.
    pub bin: PathBuf,
    /// Root of the staged extension; `None` when the extension is not wanted.
    pub stage: Option<PathBuf>,
    /// Who servers run as.
    pub account: Account,
}

/// The workspace's root directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => workspace().join(path),
        None => workspace().join("target"),
    }
}

/// A directory for servers and staged files that outlive one run: below
/// `target/`, or below `/var/tmp` when the server's account cannot enter that.
pub fn persistent_directory(account: &Account) -> Result<PathBuf> {
    let preferred = workspace().join("target");
    fs::create_dir_all(&preferred)?;
    if account.can_enter(&preferred) {
        return Ok(preferred);
    }
    // Two clones must not share a server, so the name carries the clone's path.
    let clone: String = workspace()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let fallback = PathBuf::from(format!("/var/tmp/pg_rowref{clone}"));
    fs::create_dir_all(&fallback)?;
    // Anybody may write to /var/tmp; somebody else's directory is no place for us.
    ensure!(
        fs::metadata(&fallback)?.uid() == crate::account::user_id(),
        "{} belongs to another user",
        fallback.display()
    );
    fs::set_permissions(&fallback, fs::Permissions::from_mode(0o755))?;
    Ok(fallback)
}

/// `pg_config`: `$PG_CONFIG`, `$PGRX_PG_CONFIG_PATH`, Debian's 15, or the path's.
pub fn find_pg_config() -> Result<PathBuf> {
    for name in ["PG_CONFIG", "PGRX_PG_CONFIG_PATH"] {
        if let Some(path) = std::env::var_os(name) {
            return Ok(path.into());
        }
    }
    let debian = PathBuf::from("/usr/lib/postgresql/15/bin/pg_config");
    if debian.exists() {
        return Ok(debian);
    }
    let generic = PathBuf::from("/usr/bin/pg_config");
    ensure!(generic.exists(), "no pg_config found; set PG_CONFIG");
    Ok(generic)
}

/// What `pg_config` answers to one option.
pub fn ask_pg_config(pg_config: &Path, option: &str) -> Result<PathBuf> {
    let output = Command::new(pg_config)
        .arg(option)
        .output()
        .with_context(|| format!("running {}", pg_config.display()))?;
    ensure!(
        output.status.success(),
        "{} {option} failed",
        pg_config.display()
    );
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// Builds the extension in release mode and returns the library's path.
pub fn build_extension(pg_config: &Path) -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["build", "--quiet", "--release", "--package", EXTENSION])
        .env("PGRX_PG_CONFIG_PATH", pg_config)
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the extension did not build");
    Ok(target_directory().join(format!("release/lib{EXTENSION}.so")))
}

/// Copies `from` beside `to` and renames it into place, so that a server which
/// has `to` mapped keeps its old file.
fn replace(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let (Ok(old), Ok(new)) = (fs::read(to), fs::read(from))
        && old == new
    {
        return Ok(());
    }
    let beside = to.with_extension(format!("new-{}", std::process::id()));
    fs::copy(from, &beside)
        .with_context(|| format!("copying {} to {}", from.display(), beside.display()))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, to).with_context(|| format!("renaming to {}", to.display()))?;
    Ok(())
}

/// Joins an absolute path below a staging root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Copies the built extension where `pg_config` says, below `destdir` if
/// given. Returns what was installed.
pub fn install(pg_config: &Path, library: &Path, destdir: Option<&Path>) -> Result<Vec<PathBuf>> {
    let place = |path: PathBuf| match destdir {
        Some(root) => below(root, &path),
        None => path,
    };
    let library_dir = place(ask_pg_config(pg_config, "--pkglibdir")?);
    let extension_dir = place(ask_pg_config(pg_config, "--sharedir")?.join("extension"));
    for dir in [&library_dir, &extension_dir] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let mut installed = vec![library_dir.join(format!("{EXTENSION}.so"))];
    replace(library, &installed[0], 0o755)?;
    let control = workspace().join(format!("{EXTENSION}.control"));
    ensure!(control.exists(), "{} is missing", control.display());
    let mut files = vec![control];
    for entry in fs::read_dir(workspace().join("sql"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!("{EXTENSION}--")) && name.ends_with(".sql") {
            files.push(path);
        }
    }
    ensure!(files.len() > 1, "sql/ holds no {EXTENSION}--*.sql");
    for file in files {
        let to = extension_dir.join(file.file_name().expect("a listed file has a name"));
        replace(&file, &to, 0o644)?;
        installed.push(to);
    }
    Ok(installed)
}

impl Installation {
    /// The server of this machine, without the extension.
    pub fn plain() -> Result<Installation> {
        let pg_config = find_pg_config()?;
        let version = ask_pg_config(&pg_config, "--version")?;
        if !version.to_string_lossy().starts_with("PostgreSQL 15") {
            bail!(
                "{} belongs to {}; PostgreSQL 15 is needed",
                pg_config.display(),
                version.display()
            );
        }
        Ok(Installation {
            bin: ask_pg_config(&pg_config, "--bindir")?,
            account: Account::detect()?,
            pg_config,
            stage: None,
        })
    }

    /// The server, with the extension freshly built and staged.
    pub fn staged() -> Result<Installation> {
        let mut installation = Installation::plain()?;
        let library = build_extension(&installation.pg_config)?;
        let stage = persistent_directory(&installation.account)?.join("stage");
        install(&installation.pg_config, &library, Some(&stage))?;
        installation.stage = Some(stage);
        Ok(installation)
    }

    /// What `access_method` needs, built at most once in this process. A run
    /// of `xtask test` stages first and tells its children by `ROWREF_STAGE`.
    pub fn for_access_method(access_method: &str) -> Result<Installation> {
        static STAGED: OnceLock<std::result::Result<Installation, String>> = OnceLock::new();
        if !crate::needs_extension(access_method) {
            return Installation::plain();
        }
        STAGED
            .get_or_init(|| {
                let staged = match std::env::var_os("ROWREF_STAGE") {
                    Some(path) => Installation::plain().map(|plain| Installation {
                        stage: Some(path.into()),
                        ..plain
                    }),
                    None => Installation::staged(),
                };
                staged.map_err(|error| format!("{error:#}"))
            })
            .clone()
            .map_err(anyhow::Error::msg)
    }

    /// The staged library's absolute path.
    pub fn library(&self) -> Result<Option<PathBuf>> {
        let Some(stage) = &self.stage else {
            return Ok(None);
        };
        let directory = ask_pg_config(&self.pg_config, "--pkglibdir")?;
        Ok(Some(
            below(stage, &directory).join(format!("{EXTENSION}.so")),
        ))
    }

    /// One of the server's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}
