package main

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A probe says what the program answers and what the network is, side by side.
func TestProbe(t *testing.T) {
	inNetwork(t)
	silence(t, "agents-end", "egress-end")
	root, _ := newVolume(t)
	if err := claim(root, newResolver(), 0); err != nil {
		t.Fatal(err)
	}

	report := probe(root, newResolver(), newReader(t, root))

	if report.Sibling != "coredns" || report.Build != "reader" || report.Connections != 2 || report.Error != "" {
		t.Errorf("got %+v", report)
	}
	if !maps.Equal(report.Versions, map[string]string{"lds/listeners": "1", "rds/http-80": "1"}) {
		t.Errorf("versions %v", report.Versions)
	}
	if !report.Claimed || !slices.Equal(report.Addresses, []string{"10.213.8.10", "10.213.8.53", "10.214.0.138"}) {
		t.Errorf("claimed %v, addresses %v", report.Claimed, report.Addresses)
	}
	ends := []string{"interface agents-end is not ours", "interface egress-end is not ours"}
	if !slices.Equal(report.Network, ends) {
		t.Errorf("network %#v", report.Network)
	}
	if report.Others == nil || len(report.Others) > 0 || report.Refused == nil || len(report.Refused) > 0 {
		t.Errorf("others %#v, refused %#v", report.Others, report.Refused)
	}
	if report.Unhealthy != "" {
		t.Errorf("unhealthy: %s", report.Unhealthy)
	}
	if len(report.Program) == 0 || report.Processes == nil {
		t.Errorf("program %#v, processes %#v", report.Program, report.Processes)
	}
}

// A program that does not answer is an error in the report, which says the rest nevertheless.
func TestProbeOfASilentProgram(t *testing.T) {
	inNetwork(t)
	root, _ := newVolume(t)
	program := newReader(t, root)
	program.broken = errors.New("no answer")

	report := probe(root, newResolver(), program)

	if report.Unhealthy != "no answer" {
		t.Errorf("unhealthy: %q", report.Unhealthy)
	}
	if report.Error != "no answer" || len(report.Addresses) != 2 || report.Claimed {
		t.Errorf("got %+v", report)
	}
}

// A part of the network that can't be read is a difference in the report, never none.
func TestProbeOfAnUnreadableNetwork(t *testing.T) {
	inNetwork(t)
	root, _ := newVolume(t)
	resolver := newResolver()
	resolver.Sysctls = map[string]string{"net.ipv4.nonexistent": "0"}

	report := probe(root, resolver, newReader(t, root))

	if !slices.ContainsFunc(report.Network, func(text string) bool {
		return strings.HasPrefix(text, "unreadable: settings: ") && strings.Contains(text, "nonexistent")
	}) {
		t.Errorf("network %q", report.Network)
	}
}

// A sibling is healthy while every resource is live at the version that was committed.
func TestHealth(t *testing.T) {
	root, _ := newVolume(t)
	write(t, root, tree{"hot/eye/envoy.json": `{"address": "127.0.0.1", "ports": []}`})

	if err := health(root, newResolver(), newReader(t, root)); err != nil {
		t.Error(err)
	}
}

// A sibling that serves another version than the committed one is unhealthy, and says which resources do.
func TestHealthOfAnotherVersion(t *testing.T) {
	root, files := newVolume(t)
	program := newReader(t, root)
	write(t, filepath.Join(root, "hot"), tree{routes: "2 " + routes, listeners: files[listeners]})

	err := health(root, newResolver(), program)

	if err == nil || err.Error() != "not live at version 1: [rds/http-80]" {
		t.Errorf("got %v", err)
	}
}

// Without a record of what was committed, or an answer, nothing is healthy.
func TestHealthNeedsProof(t *testing.T) {
	root, _ := newVolume(t)
	program := newReader(t, root)
	if err := health(t.TempDir(), newResolver(), program); err == nil {
		t.Error("healthy without a record")
	}
	program.broken = errors.New("no answer")
	if err := health(root, newResolver(), program); !errors.Is(err, program.broken) {
		t.Errorf("got %v", err)
	}
}

// A health check takes a claimed address again that was lost, and announces it each time.
func TestHealthKeepsTheClaim(t *testing.T) {
	inNetwork(t)
	root, _ := newVolume(t)
	write(t, root, tree{"hot/eye/envoy.json": `{"address": "127.0.0.1", "ports": []}`})
	write(t, root, tree{"state/claimed": ""})
	hear := listenForARP(t, "agents-end")

	for range 2 {
		if err := health(root, newResolver(), newReader(t, root)); err != nil {
			t.Fatal(err)
		}
		hear()
		expectHolders(t, "agents")
	}
}

// A health check without a claim leaves the address alone.
func TestHealthClaimsNothing(t *testing.T) {
	inNetwork(t)
	root, _ := newVolume(t)
	write(t, root, tree{"hot/eye/envoy.json": `{"address": "127.0.0.1", "ports": []}`})

	if err := health(root, newResolver(), newReader(t, root)); err != nil {
		t.Fatal(err)
	}

	expectHolders(t)
}
