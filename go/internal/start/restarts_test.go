package start

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/volume"
)

// Each end is counted, the last ones with their times; a shorter record replaces a longer one.
func TestRestarts(t *testing.T) {
	volume, now := t.TempDir(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record := must.Get[*restarts](t)(newRestarts(volume))
	if found, err := ReadRestarts(volume); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	add := func(helper, reason string, seconds int) {
		t.Helper()
		passed := time.Duration(seconds)*time.Second + time.Millisecond
		must.Succeed(t, record.add(helper, reason, now.Add(passed), passed))
	}
	add("recorder", strings.Repeat("long ", 100), 0)
	for number := range 2 * restartsTolerated {
		add("recorder", "killed", number)
	}
	add("forwarder", "exit status 1", 0)

	found, err := ReadRestarts(volume)

	if err != nil || len(found) != 2 {
		t.Fatalf("%v, %v", found, err)
	}
	last := now.Add(9 * time.Second) // for people, without the fraction
	if one := found[0]; one.Count != 11 || one.Reason != "killed" || !one.Last.Equal(last) || len(one.Recent) != restartsTolerated {
		t.Errorf("%+v", one)
	}
	up := 9 * time.Second
	if !found[0].keepsEnding(up) || found[0].keepsEnding(up+restartsWithin) || found[1].keepsEnding(up) {
		t.Error("who keeps ending?")
	}
	if _, err := newRestarts(volume); err != nil {
		t.Error(err)
	}
	if found, err := ReadRestarts(volume); err != nil || len(found) != 0 {
		t.Errorf("after a start: %v, %v", found, err)
	}
}

// A disk that is full keeps the record as it was, and nothing beside it.
func TestRestartsOnAFullDisk(t *testing.T) {
	must.BeRoot(t, "to have a small disk")
	disk := t.TempDir()
	must.Succeed(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	record := must.Get[*restarts](t)(newRestarts(disk))
	must.Succeed(t, record.add("recorder", "killed", time.Now(), time.Second))
	filler := must.Open[*os.File](t)(os.Create(filepath.Join(disk, "filler")))
	for err := error(nil); !errors.Is(err, unix.ENOSPC); {
		_, err = filler.Write(make([]byte, 512))
	}

	if err := record.add("forwarder", "killed", time.Now(), time.Second); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}

	if found, err := ReadRestarts(disk); err != nil || len(found) != 1 || found[0].Helper != "recorder" {
		t.Errorf("%v, %v", found, err)
	}
	if files := must.Get[[]string](t)(volume.FilesBelow(filepath.Join(disk, "state"))); len(files) != 1 {
		t.Errorf("%q", files)
	}
}

// Whoever sets the clock changes nothing of how often a helper has ended lately.
func TestRestartsWhileTheClockIsSet(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for what, each := range map[string]struct {
		apart time.Duration // two ends, by the machine
		clock time.Duration // and by the clock
		often bool
	}{
		"back":    {time.Hour, -3 * time.Hour, false},
		"forward": {time.Minute, 24 * time.Hour, true},
	} {
		record := restarts{path: restartsRecord(t.TempDir())}
		for number := range time.Duration(restartsTolerated) {
			must.Succeed(t, record.add("recorder", "killed", began.Add(number*each.clock), number*each.apart))
		}
		if often := record.each[0].keepsEnding(restartsTolerated * each.apart); often != each.often {
			t.Errorf("%s: %t", what, often)
		}
	}
}

// A helper that ends again and again waits longer each time, and not for ever; one that has run for long does not wait.
func TestPauses(t *testing.T) {
	began := time.Now()
	kept := helper{began: began}
	var pauses []time.Duration
	for range 10 {
		pauses = append(pauses, kept.pause(began.Add(time.Second)))
	}
	if pauses[0] != restartSoonest || pauses[1] != 2*restartSoonest || pauses[9] != restartLatest {
		t.Errorf("%v", pauses)
	}
	if found := kept.pause(began.Add(restartForgotten)); found != restartSoonest {
		t.Errorf("%v", found)
	}
}
