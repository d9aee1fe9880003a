// Package serving asks a container's program, Envoy or CoreDNS, for its loaded configuration and its state.
package serving

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/statussocket"
)

// Program is the program of a firewall container.
type Program interface {
	Build() (string, error)
	// Live maps each loaded resource to the digest of its loaded content.
	Live(resources []boot.Resource) (map[string]string, error)
	// Evidence returns the states and digests of the last Live, which save reading them again.
	Evidence() Evidence
	// Versions maps each resource with a versioned file to the last version that the program accepted.
	Versions(resources []boot.Resource) (map[string]string, error)
	// Rejections counts the rejected updates since the program's start, by resource.
	Rejections(resources []boot.Resource) (map[string]int, error)
	// Reason returns the program's explanation of its last rejection.
	Reason() string
	// Serves fails unless CoreDNS answers over both transports, or Envoy resolves names.
	Serves() error
	// Telemetry counts the program's sent and lost records.
	Telemetry() (statussocket.Telemetry, error)
	// FailedChecks counts the program's failed internal checks since its start.
	FailedChecks() (int, error)
}

// Evidence maps resources to states of the program and digests. A digest is valid while the program stays in its
// state. Reading it takes Envoy half a second with thousands of rules.
type Evidence map[string]Loaded

// Loaded is a state of the program, and the digest of its configuration then.
type Loaded struct {
	State  string `json:"state"`
	Digest string `json:"digest"`
}

// Of returns the program of a container, with known evidence.
func Of(sibling boot.Sibling, evidence Evidence) Program {
	if sibling.Name == "envoy" {
		program := NewEnvoy(AdminSocket, evidence)
		if sibling.Signer != nil {
			program.signer = sibling.Signer.Folder
		}
		return program
	}
	return coredns{folder: statusFolder, server: "127.0.0.1:53", resources: sibling.Resources}
}

const PollEvery = 10 * time.Millisecond

// servesWithin limits the time to show that the program serves, generously for a busy machine.
const servesWithin = 2 * time.Second

func patiently(try func() error) error {
	for end := time.Now().Add(servesWithin); ; time.Sleep(PollEvery) {
		if err := try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// NotTaken lists the resources from files of another version. The same content may have been live before.
func NotTaken(program Program, resources []boot.Resource, version string) ([]string, error) {
	taken, err := program.Versions(resources)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(taken, func(_, other string) bool { return other == version })
	return slices.Sorted(maps.Keys(taken)), nil
}

// statusFolder has the status sockets of CoreDNS's plugins, one for each hashed resource, as set in the Corefile.
const statusFolder = "/tmp"

// Resources with further status.
const (
	policyResource    = "policy"
	telemetryResource = "telemetry"
)

const AnswerLimit = time.Second

// refusedName can't be allowed, because .invalid is reserved (RFC 6761).
const refusedName = "refused.clawker-fw.invalid."

// coredns reads the plugins' status from their sockets, and queries the program like an agent.
type coredns struct {
	folder    string
	server    string
	resources []boot.Resource
}

func (c coredns) status(resource string) (statussocket.Plugin, error) {
	var status statussocket.Plugin
	err := statussocket.Ask(filepath.Join(c.folder, resource+".sock"), AnswerLimit, nil, &status)
	return status, err
}

func (c coredns) statuses(resources []boot.Resource) (map[string]statussocket.Plugin, error) {
	statuses := map[string]statussocket.Plugin{}
	for _, resource := range resources {
		if !resource.Hashed {
			continue
		}
		status, err := c.status(resource.Name)
		if err != nil {
			return nil, err
		}
		statuses[resource.Name] = status
	}
	return statuses, nil
}

func (c coredns) Build() (string, error) {
	status, err := c.status(policyResource)
	return status.Build, err
}

func (c coredns) Live(resources []boot.Resource) (map[string]string, error) {
	if err := Refuses(c.server, "udp"); err != nil {
		return nil, err
	}
	statuses, err := c.statuses(resources)
	if err != nil {
		return nil, err
	}
	live := map[string]string{}
	for name, status := range statuses {
		live[name] = status.Digest
	}
	return live, nil
}

// Serves tries both transports. On a busy resolver, one may fail.
func (c coredns) Serves() error {
	return patiently(func() error { return errors.Join(Refuses(c.server, "udp"), Refuses(c.server, "tcp")) })
}

// Evidence is empty: the plugins report digests at no cost.
func (c coredns) Evidence() Evidence { return nil }

func (c coredns) Versions([]boot.Resource) (map[string]string, error) {
	return map[string]string{}, nil
}

func (c coredns) Rejections(resources []boot.Resource) (map[string]int, error) {
	statuses, err := c.statuses(resources)
	if err != nil {
		return nil, err
	}
	rejections := map[string]int{}
	for name, status := range statuses {
		rejections[name] = status.Refused
	}
	return rejections, nil
}

func (c coredns) Reason() string {
	statuses, err := c.statuses(c.resources)
	if err != nil {
		return err.Error()
	}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if reason := statuses[name].Reason; reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return strings.Join(reasons, "; ")
}

func (c coredns) Telemetry() (statussocket.Telemetry, error) {
	if !slices.ContainsFunc(c.resources, func(resource boot.Resource) bool { return resource.Name == telemetryResource }) {
		return statussocket.Telemetry{}, nil
	}
	status, err := c.status(telemetryResource)
	return status.Telemetry, err
}

// FailedChecks is 0: a Go program ends after a failed check.
func (c coredns) FailedChecks() (int, error) { return 0, nil }

// Refuses queries a resolver for the refused name over `udp` or `tcp`, and fails unless the answer is NXDOMAIN.
func Refuses(server, network string) error {
	client := dns.Client{Net: network, Timeout: AnswerLimit}
	reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(refusedName, dns.TypeA), server)
	if err != nil {
		return fmt.Errorf("querying %s over %s: %w", server, network, err)
	}
	if reply.Rcode != dns.RcodeNameError {
		return fmt.Errorf("querying %s over %s: %s was answered with %s", server, network, refusedName, dns.RcodeToString[reply.Rcode])
	}
	return nil
}
