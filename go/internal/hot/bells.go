package hot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"clawker-fw/internal/boot"
)

// Envoy reads a file again when something is renamed into a folder that it watches, and its watch stays with the folder
// when that is moved. So it watches a folder of its own for each file, outside both trees, in which a commit renames an
// empty file: its bell. They are in the container's memory, and so take no room on the disk.

var bell = [...]string{"0", "1"}

// MakeBells makes the folders that the program watches, before it starts.
func MakeBells(resources []boot.Resource) error {
	for _, each := range resources {
		if each.Watched == "" {
			continue
		}
		if err := os.MkdirAll(each.Watched, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(each.Watched, bell[0]), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ring has the program read its files again, in the order of its resources, so that a file comes before those that refer
// to it.
func ring(resources []boot.Resource) error {
	for _, each := range resources {
		if each.Watched == "" {
			continue
		}
		one, other := filepath.Join(each.Watched, bell[0]), filepath.Join(each.Watched, bell[1])
		err := os.Rename(one, other)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(other, one)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
