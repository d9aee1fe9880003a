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

// There are two complete trees of dynamic files: hot/, which the programs read, and good/hot/, usually its copy. A
// commit overwrites the files in good/hot/, whose blocks are already allocated, and exchanges the two trees in one
// step (renameat2(2), RENAME_EXCHANGE). If the program rejects the files, the trees are exchanged again. So
// neither step needs room on the disk, except for files that have grown, and after a crash one of the trees is the
// last verified set, which state/committed.json describes.
//
// good/next.json is the record of a set before it is verified; otherwise good/spare.json reserves its room.

func hotFolder(root string) string { return filepath.Join(root, "hot") }

func goodFolder(root string) string { return filepath.Join(root, "good") }

func goodTree(root string) string { return filepath.Join(goodFolder(root), "hot") }

func nextRecord(root string) string { return filepath.Join(goodFolder(root), "next.json") }

func spareRecord(root string) string { return filepath.Join(goodFolder(root), "spare.json") }

var errUnproven = errors.New("the hot files are not what was committed")

// StartGood makes hot/ the last verified set, or fails: a program must never start on unverified files.
func StartGood(root string) error {
	if _, err := settle(root); err != nil {
		return err
	}
	// Docker wrote these files without syncing them to the disk.
	if err := errors.Join(flushTree(hotFolder(root)), flushTree(filepath.Dir(RecordPath(root)))); err != nil {
		return err
	}
	reserveAll(hotFolder(root))
	reserveAll(filepath.Dir(RecordPath(root)))
	return finish(root)
}

// settle exchanges the trees if only good/hot/ is the last verified set, and reports whether it did. Then a commit
// was killed, or the files were changed manually.
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
		return false, fmt.Errorf("%w (%w), and neither is the copy (%w)", errUnproven, changed, err)
	}
	return true, turn(root)
}

// turn exchanges the two trees, and syncs both folders.
func turn(root string) error {
	if err := os.Mkdir(hotFolder(root), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := exchange(goodTree(root), hotFolder(root)); err != nil {
		return err
	}
	return errors.Join(flush(root), flush(goodFolder(root)))
}

// exchange exchanges two files or folders in one step, or else in three, which completeMove finishes after a
// crash.
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

// completeMove finishes an exchange in three steps that was killed.
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

// prepare makes good/hot/ a set to be verified, completely and synced, after it has reserved room for its copy.
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
	if err != nil { // no earlier record, or no support by the file system
		err = os.Rename(next, committed)
	}
	if err != nil {
		return err
	}
	return errors.Join(flushTree(filepath.Dir(committed)), flush(goodFolder(root)))
}

// finish makes good/hot/ a copy of hot/ again, and removes the mark of a running commit. If files have grown and
// the disk is full, the copy waits for the next commit or start.
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
			_ = overwrite(spareRecord(root), file{content: content, mode: 0o644}) // without it, a commit needs room later
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

// fill writes a set over the files of good/hot/, once all of them have room.
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

// removeOthers removes everything in a tree except these files and the folders above them, including a link to a
// folder, or a folder in place of a file.
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

// makeRoom reserves blocks for an existing file, if it belongs to root; a secret doesn't.
func makeRoom(path string, size int) error {
	file, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	return errors.Join(reserve(file, size), file.Close())
}

// reserve reserves blocks for a file that will grow, if the file system can. Otherwise writing may fail later.
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
	if info, err := file.Stat(); err != nil || info.Size() > int64(len(new.content)) { // otherwise it would lose its reserve
		if err := file.Truncate(int64(len(new.content))); err != nil {
			return err
		}
		volume.Reserve(file, int64(len(new.content)))
	}
	return errors.Join(file.Chmod(new.mode), file.Chown(new.user, new.group))
}

// openOwn opens or creates a file for writing. The file belongs to root only afterwards.
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

// fits fails unless a folder holds exactly the files of a record, with its digests and its version. A program with
// another version would be unhealthy.
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
		return set{}, fmt.Errorf("invalid size of a commit: %d bytes", size)
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
		return errors.New("the commit has no files")
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

// A commit's report holds even after a power loss: files are synced before their record, and the record before the
// report. Otherwise a file system may keep the record and lose the files.

var flush = func(path string) error {
	opened, err := volume.Open(path)
	if err != nil {
		return err
	}
	defer opened.Close()
	return opened.Sync()
}

// flushTree syncs everything in a folder, and the folder's own name. A link has no content.
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

// fileVersion matches the end of a DiscoveryResponse from clawker-fw. The version isn't part of the content.
var fileVersion = regexp.MustCompile(`,"version_info":"([0-9a-f]+)"\}$`)

const fileVersionLength = 64

// Unversioned is the version of a file outside any commit.
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

// DigestOf returns the SHA-256 of a file without its version, in hexadecimal.
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

// Commit describes a complete set of dynamic files, and the live digest of each verified resource. It arrives as
// stage/commit.json, and becomes state/committed.json once the set is verified.
type Commit struct {
	Version string            `json:"version"` // the files' version, never used before
	Live    map[string]string `json:"live"`
	Files   []HotFile         `json:"files"` // in the order of placement; all other files are removed
	Seconds float64           `json:"seconds"`
	Rules   json.RawMessage   `json:"rules,omitempty"` // count and digest of the rules, kept for clawker-fw
}

// HotFile is a path relative to hot/ and the file's SHA-256 without its version, in hexadecimal.
type HotFile struct {
	Path   string `json:"path"`
	Digest string `json:"sha256"`
}

// Read returns the file's content from a folder of dynamic files, and fails if its digest differs.
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

// ReadRecord reads the record of a set, which must have a file.
func ReadRecord(path string) (Commit, error) {
	var record Commit
	err := volume.ReadJSON(path, &record)
	if err == nil && len(record.Files) == 0 {
		err = fmt.Errorf("%s has no files", path)
	}
	return record, err
}
