use super::*;
use crate::policy::files::Files;
use crate::proto::files::Conditions;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A folder that is removed at the end: `in/` is the root, beside which there is `secret`.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("framegate-files-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("in/sub")).unwrap();
        std::fs::write(path.join("secret"), "secret").unwrap();
        std::fs::write(path.join("in/a.txt"), "abc").unwrap();
        std::fs::write(path.join("in/sub/b.txt"), "b").unwrap();
        for (target, link) in
            [("a.txt", "inside"), ("../secret", "out"), ("..", "up"), ("sub", "folder"), ("loop", "loop")]
        {
            symlink(target, path.join("in").join(link)).unwrap();
        }
        symlink(path.join("in/a.txt"), path.join("in/absolute")).unwrap();
        Folder(path)
    }

    fn root(&self) -> OwnedFd {
        open(self.0.join("in"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn wanted(&self, path: &str) -> Wanted {
        Wanted {
            files: Files { root: self.0.join("in").into(), index: "b.txt".into() },
            path: path.as_bytes().to_vec(),
            is_directory: path.is_empty(),
            location: format!("/{path}/"),
            conditions: Conditions::default(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn text_of(opened: Result<OwnedFd, Errno>) -> Result<String, Errno> {
    opened.map(|file| std::io::read_to_string(File::from(file)).unwrap())
}

/// Paths that policy lets through lead nowhere by themselves: these are worse.
#[test]
fn neither_way_to_open_leads_out_of_the_root() {
    let folder = Folder::new("beneath");
    let root = folder.root();
    for path in
        ["../secret", "up/secret", "out", "absolute", "/etc/passwd", "sub/../../secret", "folder/../../secret", "", "."]
    {
        let (kernel, walked) = (open_beneath(root.as_fd(), path.as_bytes()), walk(root.as_fd(), path.as_bytes()));
        for opened in [kernel, walked] {
            let is_folder = opened
                .as_ref()
                .is_ok_and(|file| FileType::from_raw_mode(fstat(file).unwrap().st_mode) == FileType::Directory);
            assert!(opened.is_err() || is_folder, "{path}: {:?}", text_of(opened));
        }
    }
    for (path, text) in [("a.txt", "abc"), ("sub/b.txt", "b")] {
        assert_eq!(text_of(open_beneath(root.as_fd(), path.as_bytes())), Ok(text.to_owned()));
        assert_eq!(text_of(walk(root.as_fd(), path.as_bytes())), Ok(text.to_owned()));
    }
    // The kernel follows links that stay below; without it none is followed.
    for path in ["inside", "folder/b.txt"] {
        assert!(open_beneath(root.as_fd(), path.as_bytes()).is_ok(), "{path}");
        assert!(walk(root.as_fd(), path.as_bytes()).is_err(), "{path}");
    }
    assert_eq!(text_of(open_beneath(root.as_fd(), b"out")), Err(Errno::XDEV));
    assert_eq!(text_of(walk(root.as_fd(), b"out")), Err(Errno::LOOP));
    assert_eq!(text_of(open_beneath(root.as_fd(), b"loop")), Err(Errno::LOOP));
}

/// Policy refuses `..` before; it must not be the only one.
#[test]
fn a_walk_does_not_climb() {
    let folder = Folder::new("walk");
    let root = folder.root();
    for path in ["../secret", "sub/../../secret", "../in/a.txt", "./a.txt", "sub//b.txt", "/a.txt"] {
        assert_eq!(text_of(walk(root.as_fd(), path.as_bytes())), Err(Errno::NOENT), "{path}");
    }
}

#[test]
fn responses_are_those_of_what_is_there() {
    let folder = Folder::new("respond");
    let status = |path: &str| {
        let piece = respond(&folder.wanted(path), 1_000_000_000);
        assert!(matches!(piece.then, Then::End), "{path}");
        String::from_utf8_lossy(piece.bytes.get(9..12).unwrap()).into_owned()
    };
    for (path, expected) in [
        ("a.txt", "200"),
        ("sub", "308"),
        ("folder", "308"),
        ("", "404"),
        ("out", "404"),
        ("up", "404"),
        ("none", "404"),
    ] {
        assert_eq!(status(path), expected, "{path}");
    }
    let mut gone = folder.wanted("a.txt");
    gone.files.root = folder.0.join("none").into();
    assert!(respond(&gone, 0).bytes.starts_with(b"HTTP/1.1 404 "));
    for (errno, expected) in [
        (Errno::ACCESS, 403),
        (Errno::MFILE, 503),
        (Errno::IO, 500),
        (Errno::NOENT, 404),
        (Errno::XDEV, 404),
        (Errno::NAMETOOLONG, 404),
        (Errno::NXIO, 404),
    ] {
        assert_eq!(status_of(errno), expected);
    }
}

#[test]
fn a_file_is_read_in_pieces_and_a_short_one_is_cut() {
    let folder = Folder::new("pieces");
    let path = folder.0.join("in/large");
    let content: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|at| at as u8).collect();
    std::fs::write(&path, &content).unwrap();
    let mut piece = respond(&folder.wanted("large"), 0);
    let head = piece.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut body = piece.bytes.split_off(head);
    let mut pieces = 1;
    while let Then::Read(rest) = piece.then {
        piece = read(rest, Vec::new());
        assert!(piece.bytes.len() <= PIECE_BYTES);
        body.append(&mut piece.bytes);
        pieces += 1;
    }
    assert!(matches!(piece.then, Then::End) && body == content && pieces == 3);
    let rest = |end: u64| Rest { file: Arc::new(File::open(&path).unwrap()), at: content.len() as u64 - 7, end };
    for (end, left) in [(content.len() as u64 + 1, 7), (u64::MAX, 7)] {
        let piece = read(rest(end), Vec::new());
        assert!(matches!(piece.then, Then::Cut) && piece.bytes.len() == left, "{end}");
    }
    // A directory can be opened, and not be read.
    let file = Arc::new(File::open(Path::new("/")).unwrap());
    assert!(matches!(read(Rest { file, at: 0, end: 1 }, Vec::new()).then, Then::Cut));
}
