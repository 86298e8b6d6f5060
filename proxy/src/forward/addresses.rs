//! Which of the addresses of a name is connected to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// Between the tries of two addresses, as RFC 8305 section 5 recommends; less when there are so many that the last
/// ones would not get their turn.
const PAUSE: Duration = Duration::from_millis(250);

/// The first connection that comes about, to any of these addresses. They are tried from this turn on, the next one
/// when one has failed or has not answered for a while: one that is silent takes no time from the others.
pub(super) async fn first_of<S, F>(
    addresses: &[SocketAddr],
    turn: usize,
    timeout: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<S>
where
    F: Future<Output = io::Result<S>>,
{
    let count = addresses.len().max(1);
    let in_turn = (0..addresses.len()).filter_map(|n| addresses.get(turn.wrapping_add(n) % count));
    let mut untried = in_turn.copied().peekable();
    let pause = PAUSE.min(timeout / 2 / u32::try_from(count).unwrap_or(u32::MAX));
    let mut tries = FuturesUnordered::new();
    let mut last = io::Error::other("there is no address");
    while let Some(next) = untried.next() {
        tries.push(connect(next));
        let more = untried.peek().is_some();
        let mut paused = std::pin::pin!(tokio::time::sleep(pause));
        loop {
            let tried = tokio::select! {
                tried = tries.next() => tried,
                () = &mut paused, if more => break,
            };
            match tried {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(e)) => last = e,
                None => break,
            }
            if more {
                break;
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|n| SocketAddr::from(([10, 0, 0, n], 80))).collect()
    }

    /// Which one was connected to within the time, and how long that took.
    async fn connected<F: Future<Output = io::Result<SocketAddr>>>(
        count: u8,
        turn: usize,
        connect: impl Fn(SocketAddr) -> F,
    ) -> (Option<u8>, Duration) {
        let begun = tokio::time::Instant::now();
        let addresses = addresses(count);
        let first = tokio::time::timeout(TIMEOUT, first_of(&addresses, turn, TIMEOUT, connect)).await;
        let number = |address: SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => unreachable!("none was given"),
        };
        (first.ok().and_then(Result::ok).map(number), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_takes_its_time_has_it_however_many_there_are() {
        for count in [1, 2, 10, 100] {
            let slow = async |address| {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(address)
            };
            let (first, took) = connected(count, 0, slow).await;
            assert_eq!((first, took.as_secs()), (Some(1), 2), "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_refusing_ones_do_not_keep_from_the_one_that_is_there() {
        for count in [2, 10, 100] {
            let last = SocketAddr::from(([10, 0, 0, count], 80));
            let silent = move |address| async move {
                if address == last { Ok(address) } else { std::future::pending().await }
            };
            let (first, took) = connected(count, 0, silent).await;
            assert_eq!(first, Some(count));
            assert!(took < TIMEOUT / 2 + PAUSE, "{took:?}");
            let refusing = move |address| async move {
                if address == last { Ok(address) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            };
            assert_eq!(connected(count, 0, refusing).await, (Some(count), Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_tried_in_turn_and_the_last_error_is_told() {
        let there = async |address| Ok(address);
        let mut firsts = Vec::new();
        for turn in 0..4 {
            firsts.push(connected(3, turn, there).await.0);
        }
        assert_eq!(firsts, [Some(1), Some(2), Some(3), Some(1)]);
        let refusing = async |_| Err::<SocketAddr, _>(io::ErrorKind::ConnectionRefused.into());
        let failed = first_of(&addresses(3), 0, TIMEOUT, refusing).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_of(&[], 0, TIMEOUT, async |address| Ok(address)).await.is_err());
    }
}
