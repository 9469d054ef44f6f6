//! Making sure that what a command needs is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rowref_tests::account::is_root;

/// A Debian package and a file that proves it is there.
struct Need {
    package: &'static str,
    /// Any one of these existing is enough.
    proof: &'static [&'static str],
}

const SERVER: &[Need] = &[
    Need {
        package: "postgresql-15",
        proof: &["/usr/lib/postgresql/15/bin/postgres"],
    },
    Need {
        package: "postgresql-client-15",
        proof: &["/usr/lib/postgresql/15/bin/psql"],
    },
    Need {
        package: "postgresql-server-dev-15",
        proof: &["/usr/include/postgresql/15/server/postgres.h"],
    },
];

const BUILD: &[Need] = &[
    Need {
        package: "gcc",
        proof: &["/usr/bin/gcc"],
    },
    Need {
        package: "libc6-dev",
        proof: &["/usr/include/stdio.h"],
    },
    Need {
        package: "clang",
        proof: &["/usr/bin/clang"],
    },
    Need {
        package: "libclang-dev",
        proof: &[
            "/usr/lib/llvm-14/lib/libclang.so",
            "/usr/lib/llvm-14/lib/libclang-14.so.1",
        ],
    },
];

/// Makes sure of a C compiler, libclang, and a PostgreSQL 15 to build for and
/// to run. Installs what is missing when we are root; otherwise fails with the
/// one command to run.
pub fn for_server() -> Result<()> {
    // The second is always set: by .cargo/config.toml, to Debian's.
    let custom = ["PG_CONFIG", "PGRX_PG_CONFIG_PATH"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|path| path != "/usr/bin/pg_config"));
    let mut needs: Vec<&Need> = BUILD.iter().collect();
    // Whoever names a pg_config brings the server that belongs to it.
    if !custom {
        needs.extend(SERVER);
    }
    install_missing(&needs)
}

/// Makes sure of what unpacking a source package takes.
pub fn for_sources() -> Result<()> {
    install_missing(&[&Need {
        package: "bzip2",
        proof: &["/usr/bin/bzip2", "/bin/bzip2"],
    }])
}

/// Makes sure of what compiling for a given `pg_config` takes.
pub fn for_build() -> Result<()> {
    install_missing(&BUILD.iter().collect::<Vec<_>>())
}

/// Makes sure that cargo has the component `name` (clippy, rustfmt).
pub fn component(subcommand: &str, name: &str) -> Result<()> {
    let present = Command::new("cargo")
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if present {
        return Ok(());
    }
    println!("installing the toolchain's {name}");
    let status = Command::new("rustup")
        .args(["component", "add", name])
        .status();
    ensure!(
        status.is_ok_and(|status| status.success()),
        "cargo {subcommand} is missing; run: rustup component add {name}"
    );
    Ok(())
}

fn is_there(need: &Need) -> bool {
    if need.proof.iter().any(|path| Path::new(path).exists()) {
        return true;
    }
    // Another release of Debian may keep it elsewhere; ask dpkg.
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", need.package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn install_missing(needs: &[&Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !is_there(need))
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "missing: {0}\nrun this, then try again:\n    sudo apt-get install -y --no-install-recommends {0}",
            missing.join(" ")
        );
    }
    println!("installing {}", missing.join(" "));
    let _system = LeaveSystemClustersAlone::new()?;
    apt(&["update", "-qq"])?;
    let mut arguments = vec![
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        "--no-upgrade",
    ];
    arguments.extend(&missing);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("running apt-get")?;
    ensure!(status.success(), "apt-get {} failed", arguments.join(" "));
    Ok(())
}

/// While this lives, installing PostgreSQL neither makes the `main` cluster
/// nor starts any service. What it put in place goes away with it.
struct LeaveSystemClustersAlone {
    files: Vec<PathBuf>,
}

impl LeaveSystemClustersAlone {
    fn new() -> Result<LeaveSystemClustersAlone> {
        let mut guard = LeaveSystemClustersAlone { files: Vec::new() };
        // postgresql-common's configuration includes this directory.
        let directory = Path::new("/etc/postgresql-common/createcluster.d");
        fs::create_dir_all(directory)?;
        guard.add(
            directory.join("pg_rowref.conf"),
            "# for the time of an installation\ncreate_main_cluster = false\n",
            0o644,
        )?;
        // invoke-rc.d asks this program before it starts anything.
        guard.add(
            PathBuf::from("/usr/sbin/policy-rc.d"),
            "#!/bin/sh\nexit 101\n",
            0o755,
        )?;
        Ok(guard)
    }

    fn add(&mut self, path: PathBuf, text: &str, mode: u32) -> Result<()> {
        // An administrator's own file stands.
        if path.exists() {
            return Ok(());
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        self.files.push(path);
        Ok(())
    }
}

impl Drop for LeaveSystemClustersAlone {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}
