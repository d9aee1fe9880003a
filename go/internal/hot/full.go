package hot

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/record"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/volume"
)

// A disk that is full must not keep a rule in force that somebody takes away. So there is a commit that takes no room: new
// contents are written over the copies in good/, which have the disk's blocks already, and these change places with the
// files in hot/ (renameat2(2), RENAME_EXCHANGE). It is for files that are hardly larger than those before, as they are
// with a rule less, and for file systems that write over a block where it is, as ext4, XFS and tmpfs do.

// mostSent is how many octets of files are taken from the standard input: more than the largest rule set has.
const mostSent = 256 << 20

// sentFile is a file as it is sent, for its path below hot/.
type sentFile struct {
	content []byte
	mode    fs.FileMode
	user    int
	group   int
}

// ReadSent reads what would be staged otherwise, as a tar: the record and the files.
func ReadSent(size int64, from io.Reader) (record.Commit, map[string]sentFile, error) {
	var wanted record.Commit
	files := map[string]sentFile{}
	if size <= 0 || size > mostSent {
		return wanted, nil, fmt.Errorf("%d octets are no commit", size)
	}
	archive := tar.NewReader(io.LimitReader(from, size))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return wanted, files, verifySent(wanted, files)
		}
		if err != nil {
			return wanted, nil, err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return wanted, nil, err
		}
		if header.Name == "stage/commit.json" {
			if err := json.Unmarshal(content, &wanted); err != nil {
				return wanted, nil, fmt.Errorf("%s: %w", header.Name, err)
			}
		}
		if path, hot := strings.CutPrefix(header.Name, "stage/hot/"); hot {
			files[path] = sentFile{content, header.FileInfo().Mode().Perm(), header.Uid, header.Gid}
		}
	}
}

func verifySent(wanted record.Commit, files map[string]sentFile) error {
	if len(wanted.Files) == 0 {
		return errors.New("nothing is to be committed")
	}
	for _, each := range wanted.Files {
		if file, sent := files[each.Path]; !sent || record.DigestOf(file.content) != each.Digest {
			return fmt.Errorf("%s has another digest", each.Path)
		}
	}
	return nil
}

// CommitInPlace commits files that are sent, without any further room on the disk.
func CommitInPlace(
	root string, wanted record.Commit, files map[string]sentFile, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	unlock, err := lockHot(root)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := os.RemoveAll(stageFolder(root)); err != nil { // what has arrived of it before the disk was full
		return Result{}, err
	}
	return commitInPlace(root, wanted, files, resources, program, now, taken)
}

// commitInPlace does so while no other commit is at work, and leaves alone what is staged.
func commitInPlace(
	root string, wanted record.Commit, files map[string]sentFile, resources []boot.Resource, program serving.Program, now func() time.Time, taken func(),
) (Result, error) {
	hot, good := filepath.Join(root, "hot"), filepath.Join(goodFolder(root), "hot")
	if err := errors.Join(removeUnfinished(root), saveGood(root)); err != nil {
		return Result{}, fmt.Errorf("the last proven set has no copy whose room could be used: %w", err)
	}
	if intact(hot, record.Path(root)) != nil { // the copy is the only proven set, and is about to be written over
		if err := giveGood(root); err != nil {
			return Result{}, err
		}
	}
	before, err := program.Rejections(resources)
	if err != nil {
		return Result{}, err
	}
	if err := exchangeFor(root, &wanted, files); err != nil {
		return Result{}, err
	}
	seconds := time.Duration(wanted.Seconds * float64(time.Second))
	result := prove(program, resources, Proof{wanted.Live, wanted.Version, before, seconds, taken}, now)
	if !result.Committed {
		err := errors.Join(exchangeAll(good, hot, wanted.Paths()), copyBack(hot, good, wanted.Paths()))
		return result, err
	}
	if err := removeOthers(hot, wanted.Paths()); err != nil {
		return result, err
	}
	return result, saveProvenInPlace(root, wanted)
}

// exchangeFor has files in place, under a new version, and those before them in good/. If that fails, nothing has changed.
func exchangeFor(root string, wanted *record.Commit, files map[string]sentFile) error {
	hot, good := filepath.Join(root, "hot"), filepath.Join(goodFolder(root), "hot")
	wanted.Version = record.NewVersion()
	for path, file := range files {
		file.content = record.WithVersion(file.content, wanted.Version)
		files[path] = file
	}
	err := overwriteAll(good, wanted.Paths(), files)
	if err == nil {
		err = exchangeAll(good, hot, wanted.Paths())
	}
	if err != nil {
		return errors.Join(err, copyBack(hot, good, wanted.Paths()))
	}
	return nil
}

// saveProvenInPlace makes hot/ what was proven last, as saveProven does, without further room: the record is written over its
// copy, both change places, and then the files are written over their copies. Where these can't be, there is no copy.
func saveProvenInPlace(root string, proven record.Commit) error {
	hot, good := filepath.Join(root, "hot"), filepath.Join(goodFolder(root), "hot")
	text, err := json.Marshal(proven)
	if err != nil {
		return err
	}
	if err := flushTree(hot); err != nil {
		return err
	}
	if err := overwrite(goodRecord(root), sentFile{content: text, mode: 0o644}); err != nil {
		return err
	}
	if err := exchange(goodRecord(root), record.Path(root)); err != nil {
		return err
	}
	err = errors.Join(
		flushTree(filepath.Dir(record.Path(root))), copyBack(hot, good, proven.Paths()), removeOthers(good, proven.Paths()),
		overwrite(goodRecord(root), sentFile{content: text, mode: 0o644}),
	)
	if err != nil {
		return errors.Join(err, os.Remove(goodRecord(root)))
	}
	return flushTree(goodFolder(root))
}

// copyBack writes files over their copies.
func copyBack(from, to string, paths []string) error {
	files, err := readFiles(from, paths)
	if err != nil {
		return err
	}
	return overwriteAll(to, paths, files)
}

// readFiles reads files with their modes and owners.
func readFiles(folder string, paths []string) (map[string]sentFile, error) {
	files := map[string]sentFile{}
	for _, path := range paths {
		info, err := os.Lstat(filepath.Join(folder, path))
		if err != nil {
			return nil, err
		}
		content, err := volume.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return nil, err
		}
		files[path] = sentFile{content, info.Mode().Perm(), volume.UserOf(info), volume.GroupOf(info)}
	}
	return files, nil
}

// overwriteAll writes over files that exist. It begins when all of them have the room for it.
func overwriteAll(folder string, paths []string, files map[string]sentFile) error {
	for _, path := range paths {
		if err := makeRoom(filepath.Join(folder, path), int64(len(files[path].content))); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if err := overwrite(filepath.Join(folder, path), files[path]); err != nil {
			return err
		}
	}
	return flushTree(folder)
}

// reserveAll does so for all files in a folder that root may write.
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

// makeRoom has the disk keep blocks for a file of such a size.
func makeRoom(path string, size int64) error {
	file, err := openOwn(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
}

// overwrite writes a file's new content over the old one.
func overwrite(path string, new sentFile) error {
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
	}
	return errors.Join(file.Chmod(new.mode), file.Chown(new.user, new.group))
}

// openOwn opens a file for writing that may be somebody else's: it belongs to root afterwards.
func openOwn(path string) (*os.File, error) {
	if err := os.Lchown(path, os.Geteuid(), os.Getegid()); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
}

// exchangeAll has files in two folders change places, in order: all of them, or none.
func exchangeAll(from, to string, paths []string) error {
	for at, path := range paths {
		if err := exchange(filepath.Join(from, path), filepath.Join(to, path)); err != nil {
			if at > 0 {
				err = errors.Join(err, exchangeAll(from, to, paths[:at]))
			}
			return err
		}
	}
	return nil
}

// exchange has two files change places in one step. Whoever watches for renames sees it as one.
func exchange(one, other string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: one, New: other, Err: err}
	}
	return nil
}

// withoutRoom runs what needs room on the disk, and if there is none something that does not.
func withoutRoom(usual, instead func() error) error {
	err := usual()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return instead()
	}
	return err
}

// same reports whether two files have the same content.
func same(one, other string) bool {
	first, err := os.ReadFile(one)
	if err != nil {
		return false
	}
	second, err := os.ReadFile(other)
	return err == nil && bytes.Equal(first, second)
}

// restoreInPlace restores the good set without further room: its files change places with those in hot/, which are written
// over again afterwards. good/ names no set meanwhile.
func restoreInPlace(root string) error {
	hot, good := filepath.Join(root, "hot"), filepath.Join(goodFolder(root), "hot")
	text, err := os.ReadFile(goodRecord(root))
	if err != nil {
		return err
	}
	var kept record.Commit
	if err := json.Unmarshal(text, &kept); err != nil {
		return err
	}
	paths := kept.Paths()
	if err := exchangeAll(good, hot, paths); err != nil {
		return err
	}
	if err := errors.Join(removeUnfinished(root), removeOthers(hot, paths), flushTree(hot)); err != nil {
		return err
	}
	if err := overwrite(record.Path(root), sentFile{content: text, mode: 0o644}); err != nil {
		return err
	}
	return copyBack(hot, good, paths)
}
