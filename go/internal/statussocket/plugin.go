package statussocket

import "clawker-fw/internal/hotfile"

// Plugin is what a plugin of CoreDNS reports of itself on its socket.
type Plugin struct {
	Build string `json:"build,omitempty"` // from the policy plugin alone
	hotfile.Status
	Telemetry
}

// Telemetry counts the records since the program's start: those that a collector has taken, and those that it has not.
type Telemetry struct {
	Sent      uint64       `json:"sent"`
	Lost      uint64       `json:"lost"`
	Collector *Certificate `json:"collector,omitempty"` // from CoreDNS alone
}

// Certificate is what a collector has shown of itself at the last handshake. Times are in seconds since 1970.
type Certificate struct {
	Subject string   `json:"subject"`
	Names   []string `json:"names"` // DNS names and addresses
	Begins  int64    `json:"begins"`
	Ends    int64    `json:"ends"`
	Digest  string   `json:"sha256"` // in hexadecimal
}
