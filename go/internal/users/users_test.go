package users

import (
	"path/filepath"
	"strings"
	"testing"

	"clawker-fw/internal/must"
)

// A user id is chosen among all unused ids of the container: with remapped ids, from the upper half.
func TestUsersHere(t *testing.T) {
	for mapped, want := range map[string]users{
		"0 0 4294967295":                          {FewestUsers, noUser - 1},
		"0 100000 65536":                          {32768, knownUsers - 1},
		"0 1000 1\n1 100000 65536":                {32769, knownUsers - 1},
		"0 100000 1000":                           {500, 999},
		"0 100000 131072":                         {65536, 131071},
		"0 100000 1\n1000000 200000 3000000":      {FewestUsers, 3999999},
		"0 0 1000000\n1000000 1000000 4293967295": {FewestUsers, noUser - 1},
	} {
		proc := t.TempDir()
		must.Write(t, proc, must.Tree{"self/uid_map": mapped + "\n"})
		if got, err := Here(proc); err != nil || got != want {
			t.Errorf("%q: %v, %v", mapped, got, err)
		}
	}
	for _, mapped := range []string{"", "0 0 1", "0 0 6", "nothing"} {
		proc := t.TempDir()
		must.Write(t, proc, must.Tree{"self/uid_map": mapped + "\n"})
		if got, err := Here(proc); err == nil {
			t.Errorf("%q: %v", mapped, got)
		}
	}
}

// However few user ids there are, processes of different groups never get the same one.
func TestUsersOfGroupsDiffer(t *testing.T) {
	for first := range uint64(groups) {
		few := users{first + 10, first + 14}
		of := map[uint32]uint32{}
		for range 200 {
			for group := Readers - 2; group <= Readers+1; group++ {
				user := few.another(uint32(group))
				if known, taken := of[user]; !few.has(user) || taken && known != uint32(group) {
					t.Fatalf("%d of group %d, and of %d", user, group, known)
				}
				of[user] = uint32(group)
			}
		}
	}
}

// A program with an image's user id, or with several ids, is reported.
func TestSharedUser(t *testing.T) {
	proc := t.TempDir()
	for ids, want := range map[string][]string{
		"4000000000\t4000000000\t4000000000\t4000000000": nil,
		"65532\t65532\t65532\t65532":                     {"65532"},
		"4000000000\t0\t0\t4000000000":                   {"0"},
	} {
		must.WriteUsers(t, proc)
		must.Write(t, proc, must.Tree{"1/status": "Name:\tUid: 0\nUid:\t" + ids + "\nGid:\t0\t0\t0\t0\n"})
		got, err := Shared(proc, "1")
		if err != nil || len(got) != len(want) || len(want) > 0 && !strings.Contains(got[0], want[0]) {
			t.Errorf("%s: %q, %v", ids, got, err)
		}
	}
	if got, err := Shared(filepath.Join(proc, "nothing"), "1"); err == nil {
		t.Errorf("without a process: %q", got)
	}
}
