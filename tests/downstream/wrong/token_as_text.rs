//! A token where a source of tokens belongs.
//~ `&str` is no source of access tokens
//~ for a credential of `azure_identity` use `Backend::entra`

use tower_spillover::Backend;

fn main() {
    let east = Backend::new("east", "https://contoso.openai.azure.com").expect("a backend");
    drop(east.bearer("eyJ0eXAi"));
}
