//! What `spillover init` takes.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct InitArgs {
    /// Where to write it, which must not exist yet [default: standard output].
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// What to convert: `litellm` and a config.yaml, or `apim` and the XML of a policy.
    #[arg(long, num_args = 2, value_names = ["KIND", "SOURCE"])]
    pub(super) from: Vec<String>,
    /// What the policy refers to: backends and named values as JSON (an exported ARM template, what bicep
    /// builds, or the answer of `az rest`), or the XML of a fragment.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(super) backends: Vec<PathBuf>,
    /// The model's name for clients, which a policy does not say: the deployment in the paths of requests.
    #[arg(long, value_name = "NAME", default_value = "gpt-4o")]
    pub(super) model: String,
}

const HELP: &str = "\
Examples:
  spillover init spillover.toml
  spillover init --from litellm config.yaml spillover.toml
  spillover init --from apim policy.xml --backends template.json --backends fragment.xml spillover.toml

A secret of the source is never copied: the file refers to a variable, and standard error lists which ones \
to set. It lists, too, what was left out, because it has no equivalent or is not needed.

Exit status: 0 when the file was written; 1 when it could not be, or was there; 2 when the source cannot \
be converted.";
