package start

import (
	"testing"
	"time"
)

// Each end is counted, and the last ones have their times.
func TestRestarts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var status Status
	add := func(helper, reason string, seconds int) {
		passed := time.Duration(seconds)*time.Second + time.Millisecond
		status.count(helper, reason, now.Add(passed), passed)
	}
	for number := range 2 * restartsTolerated {
		add("recorder", "killed", number)
	}
	add("forwarder", "exit status 1", 0)

	restarts := status.Restarts

	if len(restarts) != 2 {
		t.Fatalf("%v", restarts)
	}
	last := now.Add(9 * time.Second) // for people, without the fraction
	if one := restarts[0]; one.Count != 10 || one.Reason != "killed" || !one.Last.Equal(last) || len(one.Recent) != restartsTolerated {
		t.Errorf("%+v", one)
	}
	up := 9 * time.Second
	if !restarts[0].keepsEnding(up) || restarts[0].keepsEnding(up+restartsWithin) || restarts[1].keepsEnding(up) {
		t.Error("who keeps ending?")
	}
}

// Setting the clock doesn't affect the count of recent ends.
func TestRestartsWhileTheClockIsSet(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for what, test := range map[string]struct {
		apart time.Duration // two ends, by the machine
		clock time.Duration // and by the clock
		often bool
	}{
		"back":    {time.Hour, -3 * time.Hour, false},
		"forward": {time.Minute, 24 * time.Hour, true},
	} {
		var status Status
		for number := range time.Duration(restartsTolerated) {
			status.count("recorder", "killed", began.Add(number*test.clock), number*test.apart)
		}
		if often := status.Restarts[0].keepsEnding(restartsTolerated * test.apart); often != test.often {
			t.Errorf("%s: %t", what, often)
		}
	}
}

// A helper that keeps ending waits longer each time, up to a limit; one that has run for long does not wait.
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
	if got := kept.pause(began.Add(restartForgotten)); got != restartSoonest {
		t.Errorf("%v", got)
	}
}
