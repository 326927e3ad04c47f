//! The arguments of `spillover init`.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct InitArgs {
    /// The file to write, which must not exist [default: standard output].
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// What to convert: `litellm` and a config.yaml, or `apim` and a policy's XML.
    #[arg(long, num_args = 2, value_names = ["KIND", "SOURCE"])]
    pub(super) from: Vec<String>,
    /// What the policy refers to: backends and named values as JSON (an exported ARM template, the
    /// output of bicep, or the answer of `az rest`), or a fragment's XML, as FRAGMENT_ID.xml.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(super) backends: Vec<PathBuf>,
    /// The clients' name for the model, which a policy does not contain: the deployment in request
    /// paths.
    #[arg(long, value_name = "NAME", default_value = "gpt-4o")]
    pub(super) model: String,
}

const HELP: &str = "\
Examples:
  spillover init spillover.toml
  spillover init --from litellm config.yaml spillover.toml
  spillover init --from apim policy.xml --backends template.json --backends fragment.xml spillover.toml

Secrets of the source are never copied: the file refers to variables, and standard error lists the ones to \
set. It also lists what was left out, because it has no equivalent or is not needed.

Exit status: 0 if the file was written; 1 if it could not be written, or exists; 2 if the source cannot \
be converted.";
