//! The database: SQLite in one file, or PostgreSQL. Both run the same SQL.
//!
//! Nothing here stands in a request's way: keys are looked up in memory, usage is written in the background.

mod schema;

use std::path::PathBuf;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Executor, Transaction};
use thiserror::Error;

/// How long a query may wait for a connection.
const ACQUIRE: Duration = Duration::from_secs(3);

/// Connections of an instance at most: one writes usage, the others answer the admin's questions.
const CONNECTIONS: u32 = 4;

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The address is none that is known.
    #[error("{0}: a database is a file, sqlite://FILE, or postgres://USER:PASSWORD@HOST/NAME")]
    Address(&'static str),
    /// The file's folder cannot be made.
    #[error("{file}: {source}", file = file.display())]
    File {
        /// The database.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The database's own reason.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables cannot be made or brought up to date.
    #[error("the database's tables: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// What was read is nothing that is written here.
    #[error("the database: {0}")]
    Content(String),
}

/// A pool of connections to the database.
#[derive(Debug, Clone)]
pub struct Database {
    pool: AnyPool,
    is_file: bool,
}

impl Database {
    /// Opens the database, makes it where it is a file that is not there, and brings its tables up to date.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn open(address: &str) -> Result<Self, StorageError> {
        sqlx::any::install_default_drivers();
        let is_file = !address.starts_with("postgres://") && !address.starts_with("postgresql://");
        let url = if is_file { sqlite_url(address)? } else { address.to_owned() };
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE);
        let options = options.after_connect(move |connection, _| {
            Box::pin(async move {
                if is_file {
                    prepare_sqlite(connection).await?;
                }
                Ok(())
            })
        });
        let pool = options.connect(&url).await?;
        schema::migrations().run(&pool).await?;
        Ok(Self { pool, is_file })
    }

    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Whether parameters of long statements are `$1`, `$2` and so on, as PostgreSQL has them; else they are `?`. SQLite knows
    /// both, but looks for the name of each of many parameters among all of them.
    pub(crate) fn numbers_parameters(&self) -> bool {
        !self.is_file
    }

    /// Begins what happens whole or not at all.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, StorageError> {
        Ok(self.pool.begin().await?)
    }

    /// Closes all connections, so that the file is left without a log.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Readers beside one writer, and what is committed survives a loss of power.
async fn prepare_sqlite(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute("PRAGMA journal_mode = WAL").await?;
    connection.execute("PRAGMA synchronous = FULL").await?;
    connection.execute("PRAGMA busy_timeout = 5000").await?;
    // Two MB of pages a connection are enough for what is asked here.
    connection.execute("PRAGMA cache_size = -2000").await?;
    Ok(())
}

/// The address of a file as sqlx has it. The file is made readable for its owner alone.
fn sqlite_url(address: &str) -> Result<String, StorageError> {
    let path =
        ["sqlite://", "sqlite:"].iter().find_map(|scheme| address.strip_prefix(scheme)).unwrap_or(address);
    let path = path.split('?').next().unwrap_or(path);
    if path.is_empty() || path.contains("://") || path == ":memory:" {
        return Err(StorageError::Address("no database"));
    }
    let file = PathBuf::from(path);
    let wrong = |source| StorageError::File { file: file.clone(), source };
    let absolute = std::path::absolute(&file).map_err(wrong)?;
    if let Some(folder) = absolute.parent() {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&absolute).map_err(wrong)?;
    let mut url = "sqlite://".to_owned();
    for byte in absolute.to_string_lossy().bytes() {
        match byte {
            b'%' | b'?' | b'#' | b' ' => url.push_str(&format!("%{byte:02X}")),
            _ => url.push(char::from(byte)),
        }
    }
    url.push_str("?mode=rwc");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_made_once_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a folder/data #1.db");
        for _ in 0..2 {
            let database = Database::open(file.to_str().unwrap()).await.unwrap();
            let (n,): (i64,) =
                sqlx::query_as("SELECT COUNT(*) FROM meta").fetch_one(database.pool()).await.unwrap();
            assert_eq!(n, 1);
            database.close().await;
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for bad in ["", "sqlite://", "mysql://localhost/x", ":memory:"] {
            assert!(Database::open(bad).await.is_err(), "{bad}");
        }
    }
}
