// Readers of lines in Rust whose true rate is known by arithmetic: 1 / COST_US lines a second.
//
//   lines KIND HOST PORT COST_US
//
//   plain         reads a line, works on it, reads the next one
//   plain-busy    the same, but its work is computing, not sleeping
//   bounded       a thread works on lines from a channel that holds 16
//
// These hoard: they take all that comes into memory of their own, and work it off from there.
//
//   channel       a thread works on lines from a channel that grows
//   channel-busy  the same, but its work is computing, not sleeping
//   pool          four threads work on lines from such a channel, each at a quarter of the rate
//
// The cost of a line is kept by the clock: what was slept too long is made up for, up to 20 ms. At
// the end of the stream it ends once all is worked off, and says of how many lines.
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::sync::mpsc::{channel, sync_channel, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const CREDIT: Duration = Duration::from_millis(20);
/// It sleeps once it is this far ahead.
const LUMP: Duration = Duration::from_millis(1);

struct Worker {
    cost: Duration,
    busy: bool,
    due: Instant,
}

impl Worker {
    fn new(cost: Duration, busy: bool) -> Worker {
        let due = Instant::now();
        Worker { cost, busy, due }
    }

    fn work(&mut self) {
        let now = Instant::now();
        self.due = self.due.max(now - CREDIT) + self.cost;
        if self.busy {
            while Instant::now() < self.due {}
        } else if self.due > now + LUMP {
            thread::sleep(self.due - now);
        }
    }

    /// Works until the channel's end; how many lines that were.
    fn work_off(&mut self, lines: &Mutex<Receiver<String>>) -> u64 {
        let mut done = 0;
        loop {
            // The lock is kept while it waits for a line, and not while it works on it.
            let line = lines.lock().unwrap().recv();
            if line.is_err() {
                return done;
            }
            self.work();
            done += 1;
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (kind, host, port, cost) = match &args[..] {
        [_, kind, host, port, cost] => (kind, host, port, cost),
        _ => return Err("usage: lines KIND HOST PORT COST_US".into()),
    };
    let busy = kind.ends_with("-busy");
    let cost = Duration::from_micros(cost.parse()?);
    let lines = BufReader::new(TcpStream::connect(format!("{host}:{port}"))?).lines();

    let start = |threads: u32, receiver| {
        let receiver = Arc::new(Mutex::new(receiver));
        let start_one = |_| {
            let mut worker = Worker::new(cost * threads, busy);
            let lines = Arc::clone(&receiver);
            thread::spawn(move || worker.work_off(&lines))
        };
        (0..threads).map(start_one).collect::<Vec<_>>()
    };
    let mut done = 0;
    let mut threads = vec![];
    match kind.trim_end_matches("-busy") {
        "plain" => {
            let mut worker = Worker::new(cost, busy);
            for line in lines {
                line?;
                worker.work();
                done += 1;
            }
        }
        "bounded" => {
            let (sender, receiver) = sync_channel(16);
            threads = start(1, receiver);
            for line in lines {
                sender.send(line?)?;
            }
        }
        "channel" | "pool" => {
            let (sender, receiver) = channel();
            threads = start(if kind == "pool" { 4 } else { 1 }, receiver);
            for line in lines {
                sender.send(line?)?;
            }
        }
        _ => return Err(format!("no such kind: {kind}").into()),
    }
    for thread in threads {
        done += thread.join().unwrap();
    }
    eprintln!("worked off {done} lines");
    Ok(())
}
