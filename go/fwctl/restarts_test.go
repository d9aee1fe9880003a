package main

import (
	"strings"
	"testing"
	"time"
)

// Each end is counted, the last ones with their times; a shorter record replaces a longer one.
func TestRestarts(t *testing.T) {
	volume, now := t.TempDir(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record, err := newRestarts(volume)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := readRestarts(volume); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	add := func(helper, reason string, seconds int) {
		t.Helper()
		if err := record.add(helper, reason, now.Add(time.Duration(seconds)*time.Second+time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	add("recorder", strings.Repeat("long ", 100), 0)
	for number := range 2 * restartsTolerated {
		add("recorder", "killed", number)
	}
	add("forwarder", "exit status 1", 0)

	found, err := readRestarts(volume)

	if err != nil || len(found) != 2 {
		t.Fatalf("%v, %v", found, err)
	}
	last := now.Add(9 * time.Second) // for people, without the fraction
	if one := found[0]; one.Count != 11 || one.Reason != "killed" || !one.Last.Equal(last) || len(one.Recent) != restartsTolerated {
		t.Errorf("%+v", one)
	}
	if !found[0].keepsEnding(last) || found[0].keepsEnding(last.Add(restartsWithin)) || found[1].keepsEnding(last) {
		t.Error("who keeps ending?")
	}
	if _, err := newRestarts(volume); err != nil {
		t.Error(err)
	}
	if found, err := readRestarts(volume); err != nil || len(found) != 0 {
		t.Errorf("after a start: %v, %v", found, err)
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
