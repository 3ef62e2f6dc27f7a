//! What stands in for TLS in a build without the feature `tls`: nothing of it can ever be made.

#![allow(clippy::needless_pass_by_ref_mut, reason = "the signatures are those of the real ones")]

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::stream::Input;
use crate::config::{Plan, SslMode};
use crate::error::Error;

/// The policy that no manager has.
#[derive(Debug)]
pub(crate) struct Tls(Infallible);

/// The channel that no connection has.
#[derive(Debug)]
pub(crate) struct Channel(Infallible);

impl Tls {
    /// None, where none is asked for.
    ///
    /// # Errors
    ///
    /// Where one is: a connection in clear is no substitute.
    pub(crate) fn new(plan: &Plan) -> Result<Option<Arc<Self>>, Error> {
        match plan.config.ssl.mode {
            SslMode::Disable => Ok(None),
            _ => Err(Error::Config(
                "sslmode asks for TLS, but this build has none; build with the feature tls, or, \
                 on a network that is trusted, set sslmode to disable"
                    .into(),
            )),
        }
    }

    pub(crate) fn channel(&self, _endpoint: usize) -> io::Result<Channel> {
        match self.0 {}
    }
}

impl Channel {
    pub(crate) fn advance(&mut self, _socket: &mut (impl Read + Write)) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn has_pending(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn has_unsent(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn read(
        &mut self,
        _socket: &mut (impl Read + Write),
        _into: &mut [u8],
    ) -> io::Result<Input> {
        match self.0 {}
    }

    pub(crate) fn write(
        &mut self,
        _socket: &mut (impl Read + Write),
        _bytes: &[u8],
    ) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn flush(&mut self, _socket: &mut (impl Read + Write)) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn close(&mut self, _socket: &mut (impl Read + Write)) {
        match self.0 {}
    }

    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        match self.0 {}
    }
}

/// Whether it is an error of TLS.
pub(super) fn is_trouble(_error: &io::Error) -> bool {
    false
}
