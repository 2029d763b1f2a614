//! Where an encoder's files go: a folder, or a server that takes them by HTTP.

mod folder;
mod server;

use bytes::Bytes;
use fieldgate_compat::encoder::Assignment;
use fieldgate_model::config::Encoder as Settings;
use fieldgate_net::{ClientTls, HttpCallError};
use folder::Folder;
use server::Server;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a file is not stored, or not deleted.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The disk does not want it.
    #[error("{path}: {error}")]
    Io {
        /// Which file or folder.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Nothing is left that could go.
    #[error(
        "the folder is full: {used} of {most} bytes are taken, {len} more are wanted, and all streams in it are still \
         encoded; raise compat.encoder.folder_bytes"
    )]
    Full {
        /// Bytes.
        used: u64,
        /// Bytes.
        most: u64,
        /// Bytes.
        len: u64,
    },
    /// The server does not want it.
    #[error("the server of the files answered {0}, and only 200 is a yes")]
    Status(u16),
    /// The server is not there.
    #[error("the server of the files: {0}")]
    Call(#[from] HttpCallError),
    /// No valid config has such an address.
    #[error("compat.encoder.http.url is no address")]
    Url,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub(super) enum Store {
    Folder(Arc<Folder>),
    Server(Arc<Server>),
}

/// A stream whose files are made now; they stay as long as this does.
pub(super) struct Making {
    folder: Option<(Arc<Folder>, String)>,
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some((folder, stream)) = &self.folder {
            folder.end(stream);
        }
    }
}

impl Store {
    /// Looks at what is there already. `folder` counts unless the settings name a server.
    pub(super) async fn open(
        settings: &Settings,
        folder: PathBuf,
        tls: Option<ClientTls>,
    ) -> Result<Store, StoreError> {
        if let Some(call) = &settings.http {
            return Server::new(call, tls)
                .map(|server| Store::Server(Arc::new(server)))
                .ok_or(StoreError::Url);
        }
        let most = settings.folder_bytes;
        on_disk(move || Folder::open(folder, most)).await.map(|folder| Store::Folder(Arc::new(folder)))
    }

    /// From now on files of this stream are made.
    pub(super) fn begin(&self, assignment: &Assignment) -> Making {
        let stream = format!("{}/{}", assignment.channel, assignment.stream_id);
        Making {
            folder: match self {
                Store::Folder(folder) => {
                    folder.begin(&stream);
                    Some((folder.clone(), stream))
                }
                Store::Server(_) => None,
            },
        }
    }

    /// Stores a file, instead of the one that has its name.
    pub(super) async fn put(&self, path: &str, kind: &'static str, file: Bytes) -> Result<(), StoreError> {
        match self {
            Store::Folder(folder) => {
                let (folder, path) = (folder.clone(), path.to_owned());
                on_disk(move || folder.put(&path, &file)).await
            }
            Store::Server(server) => server.put(path, kind, &file).await,
        }
    }

    /// Deletes a file, if it is there.
    pub(super) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self {
            Store::Folder(folder) => {
                let (folder, path) = (folder.clone(), path.to_owned());
                on_disk(move || folder.delete(&path)).await
            }
            Store::Server(server) => server.delete(path).await,
        }
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| StoreError::Io {
        path: "the encoder's folder".to_owned(),
        error: io::Error::other("the disk's task panicked"),
    };
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}
