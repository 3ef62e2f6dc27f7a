//! A fake server: plays the scripts of a vector over real sockets, on a thread of its own. The
//! same for every client; it needs a [`Good`] server for the parts that are not attacks.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

use super::format::{Connection, Step, Until};
use super::player::{Do, Good, Player, Tamper};

/// Makes the good server of a connection; it is told whether the connection is a witness's.
pub type MakeGood = Box<dyn Fn(bool) -> Box<dyn Good> + Send>;

/// What is played.
pub struct Play {
    /// The scripts; after the last one the server is good.
    pub connections: Vec<Arc<Connection>>,
    /// The password that the good server asks for.
    pub password: Option<String>,
    /// A change of what connections with a script are sent.
    pub tamper: Tamper,
    /// Makes good servers.
    pub good: MakeGood,
}

/// A fake server that runs.
#[derive(Debug)]
pub struct Server {
    address: Address,
    control: Arc<Control>,
    thread: Option<JoinHandle<Vec<Record>>>,
}

/// Where it listens.
#[derive(Debug, Clone)]
pub enum Address {
    /// A port of the loopback address.
    Tcp(u16),
    /// A directory with a socket named for port 5432.
    Unix(PathBuf),
}

/// What became of one connection.
#[derive(Debug)]
pub struct Record {
    /// The script that was played; none for the good server's own.
    pub script: Option<usize>,
    /// Everything that was received.
    pub log: Vec<u8>,
    /// How much of it the script had expected.
    pub expected: usize,
    /// What must not be in it.
    pub secrets: Vec<Vec<u8>>,
    /// Why the script was not played to its end.
    pub unplayed: Option<String>,
}

#[derive(Debug, Default)]
struct Control {
    good: AtomicBool,
    stop: AtomicBool,
    accepted: AtomicU32,
    stalled: AtomicBool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

struct Live {
    socket: Option<Socket>,
    player: Player,
    script: Option<usize>,
    outbox: Vec<u8>,
    sent: usize,
    resume_at: Option<Instant>,
    resting: bool,
}

/// How long the thread sleeps before it looks at its orders.
const LOOK: Duration = Duration::from_millis(5);

/// Who sleeps for so much longer than asked for is on a machine that stands still.
const STALL: Duration = Duration::from_millis(60);

/// A turn sends no more than this before it reads.
const TURN: usize = 1024 * 1024;

impl Server {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn start(play: Play, unix: bool) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (listener, address) = if unix {
            let number = NUMBER.fetch_add(1, Ordering::SeqCst);
            let name = format!("replay-{}-{number}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder)?;
            let listener = UnixListener::bind(folder.join(".s.PGSQL.5432"))?;
            listener.set_nonblocking(true)?;
            (Listener::Unix(listener), Address::Unix(folder))
        } else {
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            (Listener::Tcp(listener), Address::Tcp(port))
        };
        let control = Arc::new(Control::default());
        let own = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name("fake-server".into())
            .spawn(move || serve(&play, &listener, &own))?;
        Ok(Self { address, control, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Makes it good for every connection from now on.
    pub fn turn_good(&self) {
        self.control.good.store(true, Ordering::SeqCst);
    }

    /// How many connections there were.
    pub fn accepted(&self) -> u32 {
        self.control.accepted.load(Ordering::SeqCst)
    }

    /// Whether the machine was too busy for the times of a vector to mean anything.
    pub fn has_stalled(&self) -> bool {
        self.control.stalled.load(Ordering::SeqCst)
    }

    /// Stops, and tells what happened.
    pub fn stop(mut self) -> Vec<Record> {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<Vec<Record>> {
        self.control.stop.store(true, Ordering::SeqCst);
        let records = self.thread.take()?.join();
        if let Address::Unix(folder) = &self.address {
            let _ = fs::remove_dir_all(folder);
        }
        records.ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn serve(play: &Play, listener: &Listener, control: &Control) -> Vec<Record> {
    let scripts = &play.connections;
    let steps = vec![Step::Good(Until::End)];
    let good = Arc::new(Connection { always: true, witness: false, steps });
    let mut next = scripts.iter().position(|script| !script.witness).unwrap_or(scripts.len());
    let mut lives: Vec<Live> = Vec::with_capacity(4);
    let mut records = Vec::with_capacity(8);
    while !control.stop.load(Ordering::SeqCst) {
        if sleep(listener, &lives) {
            control.stalled.store(true, Ordering::SeqCst);
        }
        for live in &mut lives {
            live.turn();
        }
        lives.retain_mut(|live| match live.socket {
            Some(_) => true,
            None => {
                records.push(live.record());
                false
            }
        });
        while let Some(socket) = listener.accept() {
            control.accepted.fetch_add(1, Ordering::SeqCst);
            let is_witness = lives.iter().any(|live| live.player.awaits_witness());
            let script = match (control.good.load(Ordering::SeqCst), is_witness) {
                (true, _) => None,
                (_, true) => scripts.iter().position(|script| script.witness),
                _ => (next < scripts.len()).then_some(next),
            };
            if script == Some(next) && !scripts[next].always {
                next += 1 + scripts[next + 1..].iter().take_while(|it| it.witness).count();
            }
            let steps = script.map_or(&good, |index| &scripts[index]);
            let server = (play.good)(is_witness);
            let player = Player::new(Arc::clone(steps), server, play.password.as_deref());
            let tamper = script.map_or(Tamper::Nothing, |_| play.tamper.clone());
            let mut live = Live::new(socket, player.tampered(tamper), script);
            live.turn();
            lives.push(live);
        }
    }
    for live in &mut lives {
        live.receive();
        records.push(live.record());
    }
    records
}

/// Sleeps until there is something to do; says whether the machine let it sleep for far too long.
fn sleep(listener: &Listener, lives: &[Live]) -> bool {
    let now = Instant::now();
    let mut span = LOOK;
    let mut fds = Vec::with_capacity(1 + lives.len());
    fds.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
    for live in lives {
        let Some(socket) = &live.socket else { continue };
        let mut wanted = PollFlags::IN;
        match live.resume_at {
            Some(at) => span = span.min(at.saturating_duration_since(now)),
            None if live.sent < live.outbox.len() => wanted |= PollFlags::OUT,
            None => {}
        }
        fds.push(PollFd::from_borrowed_fd(socket.as_fd(), wanted));
    }
    let nanoseconds = i64::from(span.subsec_nanos());
    let timeout = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    // Interrupted or failed: every turn looks at everything.
    let _ = poll(&mut fds, Some(&timeout));
    now.elapsed() > span + STALL
}

impl Live {
    fn new(socket: Socket, player: Player, script: Option<usize>) -> Self {
        let outbox = Vec::new();
        Self {
            socket: Some(socket),
            player,
            script,
            outbox,
            sent: 0,
            resume_at: None,
            resting: false,
        }
    }

    fn record(&self) -> Record {
        let log = self.player.log().to_vec();
        Record {
            script: self.script,
            expected: log.len() - self.player.unexpected().len(),
            secrets: self.player.secrets(),
            unplayed: self.player.unplayed(),
            log,
        }
    }

    /// Reads what is there; then plays on until it has to wait.
    fn turn(&mut self) {
        self.receive();
        let mut budget = TURN;
        while self.socket.is_some() && budget > 0 {
            if self.sent < self.outbox.len() {
                let Some(count) = self.send() else { return };
                budget = budget.saturating_sub(count);
                continue;
            }
            if self.resume_at.is_some_and(|at| Instant::now() < at) {
                return;
            }
            self.resume_at = None;
            match self.player.next() {
                Do::Send(bytes) => {
                    self.outbox = bytes;
                    self.sent = 0;
                }
                Do::Pause(span) => self.resume_at = Some(Instant::now() + span),
                Do::Read => return,
                Do::Rest => {
                    self.resting = true;
                    return;
                }
                Do::Close => self.socket = None,
                Do::Reset => {
                    if let Some(Socket::Tcp(socket)) = &self.socket {
                        let _ = set_socket_linger(socket, Some(Duration::ZERO));
                    }
                    self.socket = None;
                }
            }
        }
    }

    fn receive(&mut self) {
        let mut space = [0; 16 * 1024];
        while let Some(socket) = &mut self.socket {
            match socket.read(&mut space) {
                Ok(0) => self.socket = None,
                Ok(count) => self.player.receive(&space[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.socket = None,
            }
        }
    }

    /// Sends what there is room for; nothing if there is none.
    fn send(&mut self) -> Option<usize> {
        match self.socket.as_mut()?.write(&self.outbox[self.sent..]) {
            Ok(count) => {
                self.sent += count;
                Some(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Some(0),
            // The client has gone, but what it said before is still to be read.
            Err(_) => {
                self.outbox.clear();
                self.sent = 0;
                self.receive();
                self.socket = None;
                None
            }
        }
    }
}

impl Listener {
    fn accept(&self) -> Option<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().ok()?;
                socket.set_nonblocking(true).ok()?;
                let _ = socket.set_nodelay(true);
                Some(Socket::Tcp(socket))
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().ok()?;
                socket.set_nonblocking(true).ok()?;
                Some(Socket::Unix(socket))
            }
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            Self::Unix(socket) => socket.write(bytes),
        }
    }
}
