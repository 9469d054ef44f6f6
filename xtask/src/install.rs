//! `cargo xtask install`: what a packager would call.

use std::path::Path;

use anyhow::Result;
use rowref_tests::installation;

use crate::prepare;

/// Builds in release mode and installs library, control and SQL files.
pub fn run(pg_config: &Path, destdir: Option<&Path>) -> Result<bool> {
    prepare::for_build()?;
    println!("building for {}", pg_config.display());
    let library = installation::build_extension(pg_config)?;
    let installed = installation::install(pg_config, &library, destdir)?;
    for path in &installed {
        println!("  {}", path.display());
    }
    println!(
        "installed {} files. Next: shared_preload_libraries = '{}' in postgresql.conf, restart, CREATE EXTENSION {};",
        installed.len(),
        installation::EXTENSION,
        installation::EXTENSION,
    );
    Ok(true)
}
