//! The gateway from its users' perspective: the real binary, over real sockets.

#[cfg(unix)]
mod admin;
#[cfg(unix)]
mod allowed;
#[cfg(unix)]
mod answers_arrive;
#[cfg(unix)]
mod apart;
mod client_certificates;
#[cfg(unix)]
mod command_line;
mod config;
mod cors;
#[cfg(unix)]
mod delays;
mod emulate;
#[cfg(unix)]
mod endings;
#[cfg(unix)]
mod entra;
#[cfg(unix)]
mod first_token;
#[cfg(unix)]
mod fleet;
mod fleet_sticky;
#[cfg(unix)]
mod fleet_tokens;
#[cfg(unix)]
mod header_hygiene;
#[cfg(unix)]
mod homes;
#[cfg(unix)]
mod init;
mod inspecting;
#[cfg(unix)]
mod known_operations;
mod load;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(unix)]
mod misconfigured;
#[cfg(unix)]
mod names;
#[cfg(unix)]
mod naming;
#[cfg(unix)]
mod odd_files;
#[cfg(unix)]
mod operations;
#[cfg(unix)]
mod places;
#[cfg(unix)]
mod providers;
#[cfg(unix)]
mod proxies;
#[cfg(unix)]
mod questions;
#[cfg(unix)]
mod reload;
mod renewal;
mod requests;
#[cfg(unix)]
mod restarts;
#[cfg(unix)]
mod scope;
mod serve;
mod served;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod slow_backends;
#[cfg(unix)]
mod slow_clients;
mod started;
#[cfg(unix)]
mod steering;
#[cfg(unix)]
mod strain;
#[cfg(unix)]
mod tokens;
mod unprocessed;
#[cfg(unix)]
mod unread_log;
#[cfg(unix)]
mod uploading;
#[cfg(target_os = "linux")]
mod vanished_clients;
#[cfg(unix)]
mod waiting;
#[cfg(unix)]
mod websockets;
#[cfg(unix)]
mod witness;
