package policy

import (
	"github.com/coredns/coredns/coremain"

	"clawker-fw/internal/hotfile"
)

// Status is what the process reports on its socket, a file in the container that no agent can open.
type Status struct {
	Build string `json:"build"`
	hotfile.Status
	Names int `json:"names"` // number of names in the list
}

// status returns a consistent snapshot of list and rejections, of the file as it is now.
func (s *Source) status() Status {
	list, loaded := s.Fresh()
	return Status{"CoreDNS-" + coremain.CoreVersion, loaded, len(list.names)}
}
