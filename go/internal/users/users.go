// Package users chooses the user ids of the program and of each helper.
package users

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The kernel limits some resources per user id on the whole host, across containers: processes, pending signals,
// epoll watches, inotify instances. An agent may become any user, so it could exhaust those of a known user id.
// The program and each helper therefore get a random one at every start. (An agent can find it out: a process
// can't be started as a user with more processes than the limit. With 2^32 ids that takes days.)

// Readers is the group id of the program, which may read the secrets in the volume. Groups have no limits.
const Readers = 65532

// Signers is the group id of the signer, which may read the intermediates' keys.
const Signers = 65531

// FewestUsers is the lowest user id to choose, if there are enough. Images, people and services have lower ones.
const FewestUsers = 1 << 20

// User ids that are never chosen: those of images, systems and earlier releases (systemd's UIDS-GIDS), and "none".
const (
	knownUsers, knownUsersEnd = 61184, 65536
	noUser                    = 1<<32 - 1
)

// groups is the number of groups of a container's processes, which are consecutive. The user ids of each group
// have the same remainder, so no two processes get the same one.
const groups = 4

type users struct{ first, last uint64 }

// Here returns the user ids to choose from in a container: the upper half with userns-remap, with often only
// 65,536.
func Here(proc string) (users, error) {
	mapped, err := os.ReadFile(filepath.Join(proc, "self", "uid_map"))
	if err != nil {
		return users{}, err
	}
	var largest users
	for line := range strings.Lines(string(mapped)) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return users{}, fmt.Errorf("%s/self/uid_map: %q: %w", proc, line, err)
		}
		if extent := (users{inside, inside + count - 1}); extent.size() > largest.size() {
			largest = extent
		}
	}
	largest.last = min(largest.last, noUser-1)
	if largest.last > 2*FewestUsers {
		largest.first = max(largest.first, FewestUsers)
		return largest, nil
	}
	largest.first += largest.size() / 2
	if largest.first < knownUsersEnd && largest.last >= knownUsers {
		largest.last = knownUsers - 1
	}
	if largest.last < largest.first+groups {
		return users{}, fmt.Errorf("the container has too few user ids: %s", strings.TrimSpace(string(mapped)))
	}
	return largest, nil
}

func (u users) size() uint64 { return u.last - u.first + 1 }

func (u users) has(user uint32) bool { return u.first <= uint64(user) && uint64(user) <= u.last }

// another returns a random user id for a group, from the operating system's generator.
func (u users) another(group uint32) uint32 {
	first := u.first + (uint64(group)+groups-u.first%groups)%groups
	return uint32(first + groups*rand.Uint64N((u.last-first)/groups+1))
}

// New returns a user id for a process of a group, which no other group's process has.
func New(group uint32) (uint32, error) {
	here, err := Here(Processes)
	if err != nil {
		return 0, err
	}
	return here.another(group), nil
}

// Shared describes a program with a user id that serve can't have chosen, or returns nothing.
func Shared(proc, program string) ([]string, error) {
	here, err := Here(proc)
	if err != nil {
		return nil, err
	}
	status, err := os.ReadFile(filepath.Join(proc, program, "status"))
	if err != nil {
		return nil, err
	}
	var differences []string
	for line := range strings.Lines(string(status)) {
		ids, isUser := strings.CutPrefix(line, "Uid:")
		if !isUser {
			continue
		}
		for _, id := range slices.Compact(strings.Fields(ids)) {
			var user uint32
			if _, err := fmt.Sscan(id, &user); err != nil || !here.has(user) {
				differences = append(differences, fmt.Sprintf("%s: its user id %s is not its own", program, id))
			}
		}
	}
	return differences, nil
}

// Processes is the folder with the processes of this container (proc(5)).
const Processes = "/proc"
