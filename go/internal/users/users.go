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

// The kernel counts much for a user id on the whole machine, whatever the container: processes, pending signals, epoll
// watches, inotify instances. An agent may become any user, so with a user id that it knows it could take all of that. The
// program and each helper therefore get one at random, at every start. Nobody in another container can see it. (Whoever
// tries can find out: a process can't be started as a user that has more of them than the limit. With 2^32 ids that takes
// days.)

// Readers is the group id of the program, which alone may read the secrets in the volume. Nothing is counted for groups.
const Readers = 65532

// Signers is the group id of the signer, which alone may read the keys of the intermediates.
const Signers = 65531

// FewestUsers is the first user id that is given, where there are as many as usual. Those below belong to images, to
// people, and to services of machines.
const FewestUsers = 1 << 20

// Ids that are never given: what images, systems and earlier releases use (systemd's UIDS-GIDS), and what means "none".
const (
	knownUsers, knownUsersEnd = 61184, 65536
	noUser                    = 1<<32 - 1
)

// groups is how many groups the processes of a container have, which are consecutive numbers. The user ids of each have a
// remainder of their own, so that no two processes get the same one.
const groups = 4

type users struct{ first, last uint64 }

// Here returns what may be given in a container. An engine that maps user ids (userns-remap) often has only 65,536
// of them: then the upper half is used.
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

// another returns one of a group's at random. The generator is the operating system's, seeded anew in each process.
func (u users) another(group uint32) uint32 {
	first := u.first + (uint64(group)+groups-u.first%groups)%groups
	return uint32(first + groups*rand.Uint64N((u.last-first)/groups+1))
}

// New returns a user id for a process of a group, which no process of another group has.
func New(group uint32) (uint32, error) {
	here, err := Here(Processes)
	if err != nil {
		return 0, err
	}
	return here.another(group), nil
}

// Shared describes a program whose user id is none that serve has chosen, or says nothing.
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
				differences = append(differences, fmt.Sprintf("%s: its user id %s is not one of its own", program, id))
			}
		}
	}
	return differences, nil
}

// Processes is the folder with the processes of this container (proc(5)).
const Processes = "/proc"
