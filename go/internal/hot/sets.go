package hot

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"clawker-fw/internal/record"
	"clawker-fw/internal/volume"
)

// set is a complete set of hot files in memory, by path below hot/, and its record.
type set struct {
	record record.Commit
	files  map[string]file
}

type file struct {
	content []byte
	mode    fs.FileMode
	user    int
	group   int
}

// loadSet reads the files of a record from a folder, and verifies their digests.
func loadSet(folder string, wanted record.Commit) (set, error) {
	files := map[string]file{}
	for _, each := range wanted.Files {
		content, err := each.Read(folder)
		if err != nil {
			return set{}, err
		}
		info, err := os.Lstat(filepath.Join(folder, each.Path))
		if err != nil {
			return set{}, err
		}
		files[each.Path] = file{content, info.Mode().Perm(), volume.UserOf(info), volume.GroupOf(info)}
	}
	return set{wanted, files}, nil
}

func (s set) withVersion(version string) set {
	files := map[string]file{}
	for path, each := range s.files {
		each.content = record.WithVersion(each.content, version)
		files[path] = each
	}
	s.record.Version = version
	return set{s.record, files}
}

// mostSent is how many octets of files are taken from the standard input: more than the largest rule set has.
const mostSent = 256 << 20

// readSent reads what would be staged otherwise, as a tar: the record and the files.
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
	for _, each := range s.record.Files {
		if !filepath.IsLocal(each.Path) {
			return fmt.Errorf("path %q leaves the folder", each.Path)
		}
		if file, sent := s.files[each.Path]; !sent || record.DigestOf(file.content) != each.Digest {
			return fmt.Errorf("%s has another digest", each.Path)
		}
	}
	return nil
}

// What a commit says is still so after a loss of power: the files are on the disk before the record that speaks of
// them, and the record is before anybody is told. A file system may otherwise keep the record and lose the files.

// flush has a file's content, or a folder's entries, written to the disk (fsync(2)).
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
	var folders []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			folders = append(folders, path)
		case entry.Type().IsRegular():
			return flush(path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range append(folders, filepath.Dir(folder)) {
		if err := flush(path); err != nil {
			return err
		}
	}
	return nil
}
