package main

import "testing"

// Every address of the network is sent to, and the kernel's table is looked at.
func TestSweep(t *testing.T) {
	result := runFor[sweepResult](t, exitDone, "sweep", "127.0.0.0/29", "--seconds", "0")
	if result.Sent != 7 || result.Failed != 0 || result.Neighbours < 0 {
		t.Errorf("%+v", result)
	}
}

// What is no network is not sent to.
func TestSweepOfNoNetwork(t *testing.T) {
	if code, _ := run(t, "sweep", "a.test"); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
