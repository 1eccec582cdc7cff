//! A site that may become another one while its listeners stay.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Request, Response, body::Incoming};

use super::{answer::Body, server::Site};

/// The site of the moment. Clones share it.
pub struct Swapped<S>(Arc<Mutex<Arc<S>>>);

impl<S> Clone for Swapped<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Swapped<S> {
    /// Begins with this one.
    pub fn new(site: S) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(site))))
    }

    /// Requests from now on are for this one.
    pub fn set(&self, site: S) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(site);
    }

    fn get(&self) -> Arc<S> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Site> Site for Swapped<S> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.get().answer(request).await
    }
}
