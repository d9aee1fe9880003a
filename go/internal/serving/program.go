// Package serving asks the program that serves in a sibling, Envoy or CoreDNS, what it has loaded and how it is.
package serving

import (
	"slices"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/statussocket"
)

// Program is the interface to the serving process.
type Program interface {
	// Build returns the version string that the program reports.
	Build() (string, error)
	// Live maps each loaded resource to the digest of its loaded content.
	Live(resources []boot.Resource) (map[string]string, error)
	// Evidence returns how Live has found what it returned, so that it need not be found again.
	Evidence() Evidence
	// Versions maps each resource with a versioned file to the version that the program accepted last.
	Versions(resources []boot.Resource) (map[string]string, error)
	// Rejections counts the rejected updates since the program's start, by resource.
	Rejections(resources []boot.Resource) (map[string]int, error)
	// Reason returns the program's explanation of its last rejection.
	Reason() string
	// Serves fails unless the program does what agents need: CoreDNS answers over each transport, Envoy looks names up.
	Serves() error
	// Connections returns the number of open connections from agents.
	Connections() (int, error)
	// Telemetry counts what became of the records of what the program has decided.
	Telemetry() (statussocket.Telemetry, error)
}

// Evidence is what is loaded in which state of the program, by resource. While the program is still in that state, the
// digest needs no reading: with thousands of rules, that takes Envoy half a second.
type Evidence map[string]Loaded

// Loaded is a state of the program, and the digest of what is loaded in it.
type Loaded struct {
	State  string `json:"state"`
	Digest string `json:"digest"`
}

// Of returns the program of a sibling, of which this much is known.
func Of(sibling boot.Sibling, known Evidence) Program {
	if sibling.Name == "envoy" {
		found := NewEnvoy(AdminSocket, known)
		if sibling.Signer != nil {
			found.signer = sibling.Signer.Folder
		}
		return found
	}
	return coredns{folder: statusFolder, server: "127.0.0.1:53", resources: sibling.Resources}
}

// PollEvery is how long to wait before a program is asked again.
const PollEvery = 10 * time.Millisecond

// servesWithin is how long a program may take to show that it serves: much longer than on a busy machine.
const servesWithin = 2 * time.Second

func patiently(try func() error) error {
	for end := time.Now().Add(servesWithin); ; time.Sleep(PollEvery) {
		if err := try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// NotTaken lists the resources that were loaded from files of another version. That their content is live is not enough
// for a proof: the same content may have been live before.
func NotTaken(program Program, resources []boot.Resource, version string) ([]string, error) {
	taken, err := program.Versions(resources)
	if err != nil {
		return nil, err
	}
	older := []string{}
	for name, other := range taken {
		if other != version {
			older = append(older, name)
		}
	}
	slices.Sort(older)
	return older, nil
}
