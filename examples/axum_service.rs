//! An axum service that registers when it listens, and leaves in order: out of discovery first, then the door.
//!
//! `cargo run --example axum_service`, then Ctrl-C. With QUORATE_ENDPOINT it joins an ensemble that runs already.

use std::{env, time::Duration};

use axum::{Router, routing::get};
use quorate::Client;
use quorate_recipes::discovery::{Instance, Registry};
use quorate_sidecar::testing::TestEnsemble;

/// How long callers may still use what they knew. Spring's consumers cache for 35 seconds: more where there are some.
const DRAIN: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (endpoints, _ensemble) = match env::var("QUORATE_ENDPOINT") {
        Ok(endpoint) => (vec![endpoint], None),
        Err(_) => {
            let ensemble = TestEnsemble::start(3).await?;
            (ensemble.endpoints(), Some(ensemble))
        }
    };
    let client = Client::builder(endpoints).client_name("greeter").connect().await?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let registration = Registry::spring(&client).register(Instance::builder("greeter").http(address)).await?;
    println!("listening on http://{address}, registered as {}", registration.path());

    let app = Router::new().route("/", get(|| async { "hello" })).route("/healthz", get(|| async { "ok" }));
    let leave = async move {
        // Nothing can be done about a signal that cannot be waited for; then the service runs until it is killed.
        let _ = tokio::signal::ctrl_c().await;
        println!("leaving: out of service, then out of discovery");
        if let Err(error) = registration.drain(DRAIN).await {
            println!("callers could not be told: {error}");
        }
        if let Err(error) = registration.deregister().await {
            println!("the registration goes with the session: {error}");
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(leave).await?;
    let _ = client.close(Duration::from_secs(5)).await?;
    Ok(())
}
