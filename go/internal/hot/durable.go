package hot

import (
	"io/fs"
	"path/filepath"

	"clawker-fw/internal/volume"
)

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
