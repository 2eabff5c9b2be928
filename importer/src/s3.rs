//! Objects in S3, and in stores that speak like it.
//!
//! Only a URL and papers: reading is [`crate::http`]'s business. Why neither Amazon's SDK nor its crates for
//! signing are here is in docs/decisions.

mod address;
mod keys;
mod passport;
mod sign;

use std::sync::Arc;

use self::address::Address;
use self::keys::Chain;
use self::passport::S3Passport;
use crate::http::HttpSource;
use crate::http::net::Net;
use crate::{Error, Result, SourceOptions};

/// Opens `s3://bucket/key`, or an object by the URL of its endpoint with bucket and key.
pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<HttpSource> {
    let objects = &options.objects;
    if options.basic_auth.is_some() {
        return Err(Error::Credentials {
            why: "S3 takes access keys, not a user and a password: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned(),
        });
    }
    let mut address = Address::parse(spec, objects)?;
    let name = address.name();
    let chain = Arc::new(Chain::of(options, &address.region, address.is_amazon())?);
    let net = Net::open(&name, options)?;
    let mut has_moved = false;
    loop {
        let passport = Arc::new(S3Passport::new(Arc::clone(&chain), address.region.clone()));
        let url = address.url().map_err(|why| Error::Object {
            shown: name.clone(),
            why,
        })?;
        tracing::debug!(%url, region = address.region, "asking for an object");
        let asked: Arc<S3Passport> = Arc::clone(&passport);
        let error = match HttpSource::object(name.clone(), url, asked, Arc::clone(&net), options) {
            Ok(source) => return Ok(source),
            Err(error) => error,
        };
        let told = passport.told().and_then(|region| address.moved(&region));
        match told.filter(|_| !has_moved) {
            Some(there) => {
                tracing::info!(
                    from = address.region,
                    to = there.region,
                    "the bucket is in another region"
                );
                address = there;
                has_moved = true;
            }
            None => return Err(error),
        }
    }
}
