// Package serving asks the program that serves in a sibling, Envoy or CoreDNS, what it has loaded and how it is.
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

// Program is the interface to the serving process.
type Program interface {
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
	// Telemetry counts what became of the records of what the program has decided.
	Telemetry() (statussocket.Telemetry, error)
	// FailedChecks counts the checks of its own code that have failed since the program's start.
	FailedChecks() (int, error)
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
		program := NewEnvoy(AdminSocket, known)
		if sibling.Signer != nil {
			program.signer = sibling.Signer.Folder
		}
		return program
	}
	return coredns{folder: statusFolder, server: "127.0.0.1:53", resources: sibling.Resources}
}

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
	maps.DeleteFunc(taken, func(_, other string) bool { return other == version })
	return slices.Sorted(maps.Keys(taken)), nil
}

// statusFolder has the sockets on which CoreDNS's plugins report what is live, one for each hashed resource, as set in the
// Corefile. No agent can reach it.
const statusFolder = "/tmp"

// The resources that say more than what is live.
const (
	policyResource    = "policy"
	telemetryResource = "telemetry"
)

const AnswerLimit = time.Second

// refusedName can't be allowed by any rule, because .invalid is reserved (RFC 6761).
const refusedName = "refused.clawker-fw.invalid."

// coredns asks the process over its sockets what it has loaded, and checks over DNS, like an agent, that it answers.
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

// Serves asks over both transports. While many ask, one may fail.
func (c coredns) Serves() error {
	return patiently(func() error { return errors.Join(Refuses(c.server, "udp"), Refuses(c.server, "tcp")) })
}

// Evidence is empty: the plugins tell digests at no cost.
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

// FailedChecks is 0: a program in Go that finds itself at fault ends.
func (c coredns) FailedChecks() (int, error) { return 0, nil }

// Refuses queries a resolver over `udp` or `tcp` for the refused name, and fails unless the answer is NXDOMAIN.
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
