package hot

import (
	"fmt"
	"os"
	"testing"
	"time"

	"clawker-fw/internal/must"
)

// sweep runs a scene once for each of its changes to files, on a volume on a small disk, which becomes full before
// that change and stays full. Then it runs a check.
func sweep(t *testing.T, what string, volume func(t *testing.T) (root, disk string), check func(t *testing.T, root string)) {
	t.Helper()
	points := 0
	for going := true; going; {
		points++
		t.Run(fmt.Sprintf("full before change %d", points), func(t *testing.T) {
			root, disk := volume(t)
			going = stopped(t, what+":"+root, points, func(int) error {
				fill(t, disk)
				return nil
			})
			check(t, root)
		})
	}
	if points < 10 {
		t.Errorf("it changes no more than %d files", points)
	}
}

// Wherever the disk becomes full during a commit, accepted or rejected: hot/ is a verified set at once, the
// program serves it, and a start changes nothing.
func TestCommitMeetsAFullDisk(t *testing.T) {
	for _, what := range []string{"taken", "refused"} {
		t.Run(what, func(t *testing.T) {
			small := func(t *testing.T) (string, string) {
				root, disk := newSmallVolume(t)
				sendSet(t, root, "2", Routes, Added, Listeners)
				return root, disk
			}
			sweep(t, what, small, func(t *testing.T, root string) {
				files := proven(t, root)
				if _, second := Set("2", Routes, Added, Listeners); what == "refused" && len(files) == len(second) {
					t.Error("a set that was refused is on record")
				}
				for range 2 {
					expectSet(t, root, files)
					if err := Check(root, Resources, StartReader(root)); err != nil {
						t.Errorf("what serves is not healthy: %v", err)
					}
					if hasDied(root) {
						t.Error("a commit seems to be under way")
					}
					must.Succeed(t, StartGood(root))
				}
			})
		})
	}
}

// Wherever the disk becomes full while rules expire, they have expired, in a running program and before a start.
func TestAnEndMeetsAFullDisk(t *testing.T) {
	for _, what := range []string{"end", "end at a start"} {
		t.Run(what, func(t *testing.T) {
			var sets []must.Tree
			small := func(t *testing.T) (string, string) {
				var root, disk string
				root, disk, sets = newSmallEnding(t)
				return root, disk
			}
			sweep(t, what, small, func(t *testing.T, root string) {
				expectSet(t, root, sets[1])
				expectGood(t, root, sets[1])
				expectFinished(t, root)
			})
		})
	}
}

// Wherever `fwctl end` is killed, the next one or the next start removes the expired rules, and the supervisor
// starts it.
func TestAnEndDies(t *testing.T) {
	var sets []must.Tree
	ending := func(t *testing.T) string {
		var root string
		if root, sets = newEnding(t); StartGood(root) != nil {
			t.Fatal("it does not start")
		}
		return root
	}
	dead(t, "end", ending, func(t *testing.T, root string) {
		again := copyOf(t, root)
		must.Succeed(t, Volume{root, Resources, StartReader(root), moment(100)}.EndRules())
		must.Succeed(t, StartGood(again))
		must.Succeed(t, EndAtStart(again, time.Unix(100, 0)))
		for _, folder := range []string{root, again} {
			expectSet(t, folder, sets[1])
			expectGood(t, folder, sets[1])
			expectFinished(t, folder)
		}
	})
}

// The supervisor rolls back a killed commit: the program serves the last verified set again, without a restart.
func TestACommitThatDiedIsUndone(t *testing.T) {
	dead(t, "taken", staged, func(t *testing.T, root string) {
		files := proven(t, root)
		program := StartReader(root)
		clock := NewDeadline(root)
		if due, _ := clock.Due(time.Now()); due {
			must.Succeed(t, Volume{root, Resources, program, time.Now}.EndRules())
		}
		if due, _ := clock.Due(time.Now()); due {
			t.Error("it would be undone for ever")
		}
		expectSet(t, root, files)
		if err := Check(root, Resources, program); err != nil {
			t.Errorf("it does not serve the proven set: %v", err)
		}
	})
}

// On a file system that can't exchange two folders in one step, each of the three is completed or undone.
func TestAnExchangeInThreeSteps(t *testing.T) {
	for steps := range 4 {
		root, before := running(t)
		want, files := Set("2", Routes, Listeners)
		next := set{want, sentOf(files)}
		must.Succeed(t, next.prepare(root))
		good, hot := goodTree(root), hotFolder(root)
		for _, step := range [][2]string{{hot, good + moving}, {good, hot}, {good + moving, good}}[:steps] {
			must.Succeed(t, os.Rename(step[0], step[1]))
		}
		if err := StartGood(root); err != nil {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		expectSet(t, root, before)
		expectGood(t, root, before)
		expectFinished(t, root)
	}
}
