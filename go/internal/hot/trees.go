package hot

import (
	"archive/tar"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/volume"
)

// There are two complete trees of hot files: hot/, which the programs read, and good/hot/, usually its copy. A commit writes
// its files over those in good/hot/, whose blocks the disk has already, and has the two trees change places in one step
// (renameat2(2), RENAME_EXCHANGE). If the program rejects the files, the trees change places again. So neither a commit nor
// its end takes room on the disk, apart from files that have grown, and wherever it dies one of the trees is the set that
// was proven last: the one that state/committed.json describes.
//
// The record of a set that is about to be proven is good/next.json; while no commit is under way, its room is kept in
// good/spare.json.

func hotFolder(root string) string { return filepath.Join(root, "hot") }

func goodFolder(root string) string { return filepath.Join(root, "good") }

func goodTree(root string) string { return filepath.Join(goodFolder(root), "hot") }

func nextRecord(root string) string { return filepath.Join(goodFolder(root), "next.json") }

func spareRecord(root string) string { return filepath.Join(goodFolder(root), "spare.json") }

var errUnproven = errors.New("the hot files are not what was committed")

// StartGood makes sure that hot/ is the set that was proven last. It fails if neither tree is, since a program must never
// start on unproven files.
func StartGood(root string) error {
	if _, err := settle(root); err != nil {
		return err
	}
	// The engine has put these files there, and does not wait until they are on the disk.
	if err := errors.Join(flushTree(hotFolder(root)), flushTree(filepath.Dir(RecordPath(root)))); err != nil {
		return err
	}
	reserveAll(hotFolder(root))
	reserveAll(filepath.Dir(RecordPath(root)))
	return finish(root)
}

// settle has the trees change places if hot/ is not the set that was proven last and good/hot/ is, and reports whether it has
// done so. A commit has died then, or somebody has changed the files.
func settle(root string) (bool, error) {
	if err := completeMove(root); err != nil {
		return false, err
	}
	proven, err := ReadRecord(RecordPath(root))
	if err != nil {
		return false, fmt.Errorf("%w: %w", errUnproven, err)
	}
	changed := fits(hotFolder(root), proven)
	if changed == nil {
		return false, nil
	}
	if err := fits(goodTree(root), proven); err != nil {
		return false, fmt.Errorf("%w (%w), and neither is their copy (%w)", errUnproven, changed, err)
	}
	return true, turn(root)
}

// turn has the two trees change places. Both folders are on the disk afterwards.
func turn(root string) error {
	if err := os.Mkdir(hotFolder(root), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := exchange(goodTree(root), hotFolder(root)); err != nil {
		return err
	}
	return errors.Join(flush(root), flush(goodFolder(root)))
}

// exchange has two files or folders change places in one step. On file systems that can't, it takes three: completeMove does
// what is left of them.
func exchange(one, other string) error {
	err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.Join(os.Rename(other, one+moving), os.Rename(one, other), os.Rename(one+moving, one))
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: one, New: other, Err: err}
	}
	return nil
}

const moving = ".moving"

// completeMove has both trees in a place again after an exchange in three steps that has died.
func completeMove(root string) error {
	half := goodTree(root) + moving
	if _, err := os.Lstat(half); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	place := hotFolder(root)
	if _, err := os.Lstat(place); err == nil {
		place = goodTree(root)
	}
	return os.Rename(half, place)
}

// prepare makes good/hot/ a set that is to be proven, completely and on the disk. Before it changes anything, it makes sure
// that there is room for its copy as well.
func (s set) prepare(root string) error {
	for path, file := range s.files {
		if err := makeRoom(filepath.Join(hotFolder(root), path), len(file.content)); noRoom(err) {
			return err
		}
	}
	if err := s.fill(root); err != nil {
		return err
	}
	if err := os.Rename(spareRecord(root), nextRecord(root)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeRecord(nextRecord(root), s.record); err != nil {
		return err
	}
	return flushTree(goodFolder(root))
}

func accept(root string) error {
	next, committed := nextRecord(root), RecordPath(root)
	if err := os.MkdirAll(filepath.Dir(committed), 0o755); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, committed, unix.RENAME_EXCHANGE)
	if err != nil { // there was none, or the file system can't
		err = os.Rename(next, committed)
	}
	if err != nil {
		return err
	}
	return errors.Join(flushTree(filepath.Dir(committed)), flush(goodFolder(root)))
}

// finish makes good/hot/ a copy of hot/ again, and says that no commit is under way. Where files have grown and the disk is
// full, there is no copy until the next commit or start.
func finish(root string) error {
	err := keepCopy(root)
	if noRoom(err) {
		err = nil
	}
	if renamed := os.Rename(nextRecord(root), spareRecord(root)); !errors.Is(renamed, fs.ErrNotExist) {
		err = errors.Join(err, renamed)
	}
	if _, missing := os.Lstat(spareRecord(root)); missing != nil {
		if content, unreadable := os.ReadFile(RecordPath(root)); unreadable == nil {
			_ = overwrite(spareRecord(root), file{content: content, mode: 0o644}) // without it, a commit takes room later
		}
	}
	return errors.Join(err, flush(goodFolder(root)))
}

func keepCopy(root string) error {
	proven, err := ReadRecord(RecordPath(root))
	if err != nil || fits(hotFolder(root), proven) != nil {
		return os.MkdirAll(goodFolder(root), 0o755)
	}
	if fits(goodTree(root), proven) == nil {
		return nil
	}
	current, err := loadSet(hotFolder(root), proven)
	if err != nil {
		return err
	}
	if err := current.fill(root); err != nil {
		return err
	}
	return flushTree(goodFolder(root))
}

// fill writes a set over the files of good/hot/. It begins when all of them have room.
func (s set) fill(root string) error {
	tree, paths := goodTree(root), s.record.Paths()
	if info, err := os.Lstat(tree); err == nil && !info.IsDir() {
		if err := os.Remove(tree); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	if err := removeOthers(tree, paths); err != nil {
		return err
	}
	for _, path := range paths {
		if err := makeFile(filepath.Join(tree, path), len(s.files[path].content)); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if err := overwrite(filepath.Join(tree, path), s.files[path]); err != nil {
			return err
		}
	}
	return nil
}

// removeOthers removes everything in a tree that is neither one of these files nor a folder above one. A link to a folder, or
// a folder in the place of a file, goes as well.
func removeOthers(tree string, paths []string) error {
	present, err := volume.FilesBelow(tree)
	if err != nil {
		return err
	}
	for _, path := range append(present, paths...) {
		place := filepath.Join(tree, path)
		info, missing := os.Lstat(place)
		if missing == nil && (!slices.Contains(paths, path) || !info.Mode().IsRegular()) {
			if err := os.RemoveAll(place); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeFile(path string, size int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := openOwn(path)
	if err != nil {
		return err
	}
	return errors.Join(reserve(file, size), file.Close())
}

// makeRoom has the disk keep blocks for a file that is there, and belongs to root, as that of a secret does not.
func makeRoom(path string, size int) error {
	file, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	return errors.Join(reserve(file, size), file.Close())
}

// reserve has the disk keep blocks for a file that is to become larger. Of a file system that can't, its writing tells.
func reserve(file *os.File, size int) error {
	info, err := file.Stat()
	if err != nil || info.Size() >= int64(size) {
		return err
	}
	err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(size))
	if !noRoom(err) {
		err = nil
	}
	volume.Reserve(file, int64(size))
	return err
}

func reserveAll(folder string) {
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if file, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			if info, err := file.Stat(); err == nil {
				volume.Reserve(file, info.Size())
			}
			file.Close()
		}
		return nil
	})
}

func overwrite(path string, new file) error {
	file, err := openOwn(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteAt(new.content, 0); err != nil {
		return err
	}
	if info, err := file.Stat(); err != nil || info.Size() > int64(len(new.content)) { // else it would lose its reserve
		if err := file.Truncate(int64(len(new.content))); err != nil {
			return err
		}
		volume.Reserve(file, int64(len(new.content)))
	}
	return errors.Join(file.Chmod(new.mode), file.Chown(new.user, new.group))
}

// openOwn opens a file for writing that may be somebody else's, or makes it: it belongs to root alone afterwards.
func openOwn(path string) (*os.File, error) {
	err := os.Lchown(path, os.Geteuid(), os.Getegid())
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

func writeRecord(path string, written Commit) error {
	text, err := json.Marshal(written)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return overwrite(path, file{content: text, mode: 0o644})
}

// fits fails unless a folder holds exactly the files of a record, with its digests and its version. A program with another
// version would be unhealthy.
func fits(folder string, committed Commit) error {
	present, err := volume.FilesBelow(folder)
	if err != nil {
		return err
	}
	recorded := committed.Paths()
	for _, path := range present {
		if !slices.Contains(recorded, path) {
			return fmt.Errorf("%s is not in the record", path)
		}
		// The target of a link may change at any time.
		if info, err := os.Lstat(filepath.Join(folder, path)); err != nil || !info.Mode().IsRegular() {
			return errors.Join(fmt.Errorf("%s is not a regular file", path), err)
		}
	}
	for _, recorded := range committed.Files {
		content, err := recorded.Read(folder)
		if err != nil {
			return err
		}
		if version := VersionOf(content); version != "" && version != committed.Version {
			return fmt.Errorf("%s has version %s, expected %s", recorded.Path, version, committed.Version)
		}
	}
	return nil
}

func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

type set struct {
	record Commit
	files  map[string]file
}

type file struct {
	content []byte
	mode    fs.FileMode
	user    int
	group   int
}

func loadSet(folder string, record Commit) (set, error) {
	files := map[string]file{}
	for _, recorded := range record.Files {
		content, err := recorded.Read(folder)
		if err != nil {
			return set{}, err
		}
		info, err := os.Lstat(filepath.Join(folder, recorded.Path))
		if err != nil {
			return set{}, err
		}
		files[recorded.Path] = file{content, info.Mode().Perm(), volume.UserOf(info), volume.GroupOf(info)}
	}
	return set{record, files}, nil
}

func (s set) withVersion(version string) set {
	files := map[string]file{}
	for path, file := range s.files {
		file.content = WithVersion(file.content, version)
		files[path] = file
	}
	s.record.Version = version
	return set{s.record, files}
}

const mostSent = 256 << 20

func readSent(size int64, from io.Reader) (set, error) {
	sent := set{files: map[string]file{}}
	if size <= 0 || size > mostSent {
		return set{}, fmt.Errorf("%d octets are no commit", size)
	}
	archive := tar.NewReader(io.LimitReader(from, size))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return sent, sent.verify()
		}
		if err != nil {
			return set{}, err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return set{}, err
		}
		if header.Name == "stage/commit.json" {
			if err := json.Unmarshal(content, &sent.record); err != nil {
				return set{}, fmt.Errorf("%s: %w", header.Name, err)
			}
		}
		if path, hot := strings.CutPrefix(header.Name, "stage/hot/"); hot {
			sent.files[path] = file{content, header.FileInfo().Mode().Perm(), header.Uid, header.Gid}
		}
	}
}

func (s set) verify() error {
	if len(s.record.Files) == 0 {
		return errors.New("nothing is to be committed")
	}
	for _, recorded := range s.record.Files {
		if !filepath.IsLocal(recorded.Path) {
			return fmt.Errorf("path %q leaves the folder", recorded.Path)
		}
		if file, sent := s.files[recorded.Path]; !sent || DigestOf(file.content) != recorded.Digest {
			return fmt.Errorf("%s has another digest", recorded.Path)
		}
	}
	return nil
}

// What a commit says is still so after a loss of power: the files are on the disk before the record that speaks of
// them, and the record is before anybody is told. A file system may otherwise keep the record and lose the files.

var flush = func(path string) error {
	opened, err := volume.Open(path)
	if err != nil {
		return err
	}
	defer opened.Close()
	return opened.Sync()
}

// flushTree has everything in a folder written to the disk, and the folder's own name as well. A link has no content.
func flushTree(folder string) error {
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() && !entry.Type().IsRegular() {
			return err
		}
		return flush(path)
	})
	if err != nil {
		return err
	}
	return flush(filepath.Dir(folder))
}

// fileVersion matches the end of a DiscoveryResponse as clawker-fw writes it. The version identifies one commit and
// is not part of the file's meaning.
var fileVersion = regexp.MustCompile(`,"version_info":"([0-9a-f]+)"\}$`)

const fileVersionLength = 64

// Unversioned is the version of a file in no commit.
const Unversioned = "0"

func VersionOf(content []byte) string {
	match := fileVersion.FindSubmatch(content[max(0, len(content)-fileVersionLength):])
	if match == nil {
		return ""
	}
	return string(match[1])
}

func WithVersion(content []byte, version string) []byte {
	before := VersionOf(content)
	if before == "" {
		return content
	}
	end := len(content) - len(before) - len(`"}`)
	return slices.Concat(content[:end], []byte(version), []byte(`"}`))
}

func NewVersion() string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	return fmt.Sprintf("%x", random)
}

// DigestOf returns the SHA-256 of a file in hexadecimal, with its version replaced by a constant.
func DigestOf(content []byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(WithVersion(content, Unversioned)))
}

func Differing(expected, live map[string]string) []string {
	names := []string{}
	for _, name := range slices.Sorted(maps.Keys(expected)) {
		if live[name] != expected[name] {
			names = append(names, name)
		}
	}
	return names
}

// Commit describes a complete set of hot files, and the live digest of each proven resource. It is sent as
// stage/commit.json, and stored as state/committed.json once the set is live.
type Commit struct {
	Version string            `json:"version"` // the files' version, never used before
	Live    map[string]string `json:"live"`
	Files   []HotFile         `json:"files"` // in the order in which they are placed; every other file is removed
	Seconds float64           `json:"seconds"`
	Rules   json.RawMessage   `json:"rules,omitempty"` // count and digest of the rules, kept for clawker-fw
}

// HotFile is a path below hot/ and the file's SHA-256 in hexadecimal, taken without its version.
type HotFile struct {
	Path   string `json:"path"`
	Digest string `json:"sha256"`
}

// Read returns the content of the file in a folder of hot files. It fails if that has another digest.
func (f HotFile) Read(folder string) ([]byte, error) {
	if !filepath.IsLocal(f.Path) {
		return nil, fmt.Errorf("path %q leaves the folder", f.Path)
	}
	content, err := volume.ReadFile(filepath.Join(folder, f.Path))
	if err == nil && DigestOf(content) != f.Digest {
		err = fmt.Errorf("%s has another digest", f.Path) // without the digest, which may be a secret's
	}
	return content, err
}

func (c Commit) Paths() []string {
	paths := make([]string, len(c.Files))
	for index, file := range c.Files {
		paths[index] = file.Path
	}
	return paths
}

func RecordPath(root string) string { return filepath.Join(root, "state", "committed.json") }

// ReadRecord reads the record of a set, which has at least one file.
func ReadRecord(path string) (Commit, error) {
	var record Commit
	err := volume.ReadJSON(path, &record)
	if err == nil && len(record.Files) == 0 {
		err = fmt.Errorf("%s has no files", path)
	}
	return record, err
}
