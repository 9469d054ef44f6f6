//! PostgreSQL's source package, for its test suites.
//!
//! Fetched by apt from Debian, with lists and cache of our own: the machine's
//! sources need no `deb-src` line and are not touched. Only what the suites need
//! is unpacked, below `target/conformance/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rowref_tests::installation::workspace;

use crate::prepare;

const PACKAGE: &str = "postgresql-15";

/// Where Debian keeps the sources of its PostgreSQL 15, the newest first. The
/// first may list a version whose files it no longer, or not yet, has.
const LISTS: [&str; 2] = [
    "http://deb.debian.org/debian-security bookworm-security main",
    "http://deb.debian.org/debian bookworm main",
];
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The unpacked suites.
pub struct Source {
    folder: PathBuf,
    /// The package's version, as in `15.18`.
    pub version: String,
}

impl Source {
    /// The folder that holds `regress/` and `isolation/`.
    pub fn tests(&self) -> PathBuf {
        self.folder.join("src/test")
    }

    /// The folder that holds the contrib modules.
    pub fn contrib(&self) -> PathBuf {
        self.folder.join("contrib")
    }
}

fn cache() -> PathBuf {
    workspace().join("target/conformance")
}

/// The suites, fetched at most once.
pub fn obtain() -> Result<Source> {
    if let Some(source) = unpacked()? {
        return Ok(source);
    }
    prepare::for_sources()?;
    println!("fetching the source package {PACKAGE}");
    let cache = cache();
    let archive = match downloaded(&cache)? {
        Some(archive) => archive,
        None => download(&cache)?,
    };
    unpack(&cache, &archive)?;
    unpacked()?.context("the source package holds no test suites")
}

fn unpacked() -> Result<Option<Source>> {
    let Ok(entries) = fs::read_dir(cache()) else {
        return Ok(None);
    };
    for entry in entries {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let Some(version) = name.strip_prefix("postgresql-").map(str::to_owned) else {
            continue;
        };
        let source = Source { folder, version };
        if source.tests().join("isolation/isolation_schedule").exists()
            && source.tests().join("regress/parallel_schedule").exists()
            && source.contrib().join("citext/Makefile").exists()
        {
            return Ok(Some(source));
        }
    }
    Ok(None)
}

fn downloaded(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".orig.tar.bz2") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Fetches the archive from the first list that has it.
fn download(cache: &Path) -> Result<PathBuf> {
    let mut failures = Vec::new();
    for list in LISTS {
        match download_from(cache, list) {
            Ok(()) => match downloaded(cache)? {
                Some(archive) => return Ok(archive),
                None => failures.push("apt-get source left no archive".to_owned()),
            },
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("{}", failures.join("\n"))
}

fn download_from(cache: &Path, list: &str) -> Result<()> {
    let apt = cache.join("apt");
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let sources = apt.join("sources.list");
    fs::write(&sources, format!("deb-src [signed-by={KEYS}] {list}\n"))?;
    let option = |name: &str, value: &Path| format!("{name}={}", value.display());
    let options = [
        option("Dir::Etc::SourceList", &sources),
        option("Dir::Etc::SourceParts", Path::new("/dev/null")),
        option("Dir::State::Lists", &apt.join("lists")),
        option("Dir::Cache", &apt.join("cache")),
        // apt's own account could not write here.
        "APT::Sandbox::User=root".to_owned(),
    ];
    for arguments in [&["update"][..], &["source", "--download-only", PACKAGE]] {
        let mut command = Command::new("apt-get");
        command.current_dir(cache).arg("-qq");
        for option in &options {
            command.args(["-o", option]);
        }
        command.args(arguments);
        let output = command.output().context("running apt-get")?;
        ensure!(
            output.status.success(),
            "apt-get {} failed for {list}:\n{}\nthe command was:\n    {command:?}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

/// Unpacks beside and renames, so that half an archive is never taken for one.
fn unpack(cache: &Path, archive: &Path) -> Result<()> {
    let beside = cache.join("unpacking");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir_all(&beside)?;
    let status = Command::new("tar")
        .arg("-xjf")
        .arg(archive)
        .arg("-C")
        .arg(&beside)
        .args(["--no-same-owner", "--wildcards"])
        .args([
            "*/src/test/regress/*",
            "*/src/test/isolation/*",
            "*/contrib/*",
        ])
        .status()
        .context("running tar")?;
    ensure!(status.success(), "{} does not unpack", archive.display());
    for entry in fs::read_dir(&beside)? {
        let path = entry?.path();
        let name = path.file_name().context("an archive's folder has a name")?;
        let place = cache.join(name);
        // What an earlier version of this command unpacked may hold less.
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(&path, place)?;
    }
    fs::remove_dir(&beside)?;
    Ok(())
}

/// Copies a folder, for the server's account to read and write.
pub fn copy_for_account(
    from: &Path,
    to: &Path,
    account: &rowref_tests::account::Account,
) -> Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    account.own(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a listed file has a name")?);
        if path.is_dir() {
            copy_for_account(&path, &target, account)?;
        } else {
            fs::copy(&path, &target)?;
            account.own(&target)?;
        }
    }
    Ok(())
}
