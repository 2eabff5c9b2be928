//! Objects in Google Cloud Storage, by its XML API: a GET of bucket and object, like any web server's.

mod account;
mod address;
mod passport;
mod token;

use std::sync::Arc;

use self::address::Address;
use self::passport::GcsPassport;
use self::token::Chain;
use crate::http::HttpSource;
use crate::http::net::Net;
use crate::{Error, Result, SourceOptions};

/// Opens `gs://bucket/object`, or an object by its URL.
pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<HttpSource> {
    if options.basic_auth.is_some() {
        return Err(Error::Credentials {
            why: "Google takes keys of service accounts, not a user and a password: name the key's file in GOOGLE_APPLICATION_CREDENTIALS"
                .to_owned(),
        });
    }
    let address = Address::parse(spec, &options.objects)?;
    let chain = Chain::of(options, &address)?;
    let name = address.name;
    let net = Net::open(&name, options)?;
    tracing::debug!(url = %address.url, "asking for an object");
    let passport = Arc::new(GcsPassport::new(chain));
    HttpSource::object(name, address.url, passport, net, options)
}
