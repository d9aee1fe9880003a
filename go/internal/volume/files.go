// Package volume reads and writes the files of a container's volume.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Every copy of a file keeps its mode and owner from clawker-fw. Here, root lacks the capability to read other
// users' private files, so the program's secrets are read as their owner.

// ReadFile reads a file, as its owner if nobody else may.
func ReadFile(path string) ([]byte, error) {
	opened, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return io.ReadAll(opened)
}

// Open opens a file or a folder for reading, as its owner if nobody else may.
func Open(path string) (*os.File, error) { return OpenFor(path, os.O_RDONLY) }

// OpenFor opens a file with the flags of open(2), as its owner if nobody else may. A new one is only root's.
func OpenFor(path string, flags int) (*os.File, error) {
	opened, err := os.OpenFile(path, flags, 0o600)
	if !errors.Is(err, fs.ErrPermission) {
		return opened, err
	}
	info, failed := os.Stat(path)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	// The file system user id belongs to one thread only.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(UserOf(info)); err != nil {
		return nil, err
	}
	defer unix.Setfsuid(os.Geteuid())
	return os.OpenFile(path, flags, 0)
}

func UserOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func GroupOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

// ReadJSON reads a value from a file that everybody may read.
func ReadJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteFile replaces the file in one step: a reader sees the old content or the new. It reserves room for growth.
func WriteFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fresh := path + ".new"
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	Reserve(file, int64(len(content)))
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return os.Rename(fresh, path)
}

// FilesBelow lists everything in a folder except folders, as relative paths.
func FilesBelow(folder string) ([]string, error) {
	var paths []string
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}

// Slack is the room for a file's growth without a new block on the disk: a block.
const Slack = 4096

// Reserve reserves room for a file's growth, if the file system can.
func Reserve(file *os.File, size int64) {
	_ = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size+Slack)
}
