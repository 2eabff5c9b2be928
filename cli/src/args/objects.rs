//! Flags for object stores.

use clap::ValueEnum;
use longshore_importer::{ObjectOptions, S3Style};

/// What an object store wants to know.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Objects")]
pub(crate) struct ObjectArgs {
    /// Where the store of an s3:// or gs:// address is
    #[arg(long, value_name = "URL")]
    #[arg(
        help = "Where the store of an s3:// or gs:// address is [default: AWS_ENDPOINT_URL_S3, STORAGE_EMULATOR_HOST, or Amazon's and Google's own]"
    )]
    endpoint: Option<String>,
    /// Region of an s3:// bucket
    #[arg(long, value_name = "REGION")]
    #[arg(
        help = "Region of an s3:// bucket [default: AWS_REGION, or us-east-1; corrected by what the store says]"
    )]
    region: Option<String>,
    /// Where the bucket's name goes; auto puts it in front of the host's at Amazon, else into the path
    #[arg(long, default_value = "auto", value_name = "STYLE")]
    s3_style: S3StyleArg,
    /// Ask an object store without credentials, whatever there are
    #[arg(long)]
    anonymous: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum S3StyleArg {
    #[default]
    Auto,
    Path,
    VirtualHost,
}

impl ObjectArgs {
    pub(crate) fn into_options(self, options: &mut ObjectOptions) {
        let Self {
            endpoint,
            region,
            s3_style,
            anonymous,
        } = self;
        options.endpoint = endpoint;
        options.region = region;
        options.anonymous = anonymous;
        options.style = match s3_style {
            S3StyleArg::Auto => S3Style::Auto,
            S3StyleArg::Path => S3Style::Path,
            S3StyleArg::VirtualHost => S3Style::VirtualHost,
        };
    }
}
