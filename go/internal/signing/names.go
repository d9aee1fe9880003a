package signing

import (
	"fmt"
	"net/netip"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
)

// inspected are the names whose connections Envoy inspects. A subtree has its own name, too.
type inspected struct{ names, subtrees map[string]struct{} }

// parseNames parses hot/inspected/names.json.
func parseNames(content []byte) (*inspected, error) {
	var file struct {
		Names    []string `json:"names"`
		Subtrees []string `json:"subtrees"`
	}
	if err := hotfile.Unmarshal(content, &file); err != nil {
		return nil, err
	}
	names, err := setOf(file.Names)
	if err != nil {
		return nil, err
	}
	subtrees, err := setOf(file.Subtrees)
	return &inspected{names, subtrees}, err
}

// rule returns what of it has a name inspected: the name itself, or the nearest subtree, with a dot before it, or nothing.
func (i *inspected) rule(name string) string {
	if i == nil {
		return ""
	}
	if _, exactly := i.names[name]; exactly {
		return name
	}
	for above := range hostname.Around(name) {
		if _, below := i.subtrees[above]; below {
			return "." + above
		}
	}
	return ""
}

func setOf(names []string) (map[string]struct{}, error) {
	found := make(map[string]struct{}, len(names))
	for _, each := range names {
		if !hostname.Is(each) {
			return nil, fmt.Errorf("%q is not a host name in lower case", each)
		}
		found[each] = struct{}{}
	}
	return found, nil
}

// certified returns the name for which a certificate is asked for, in lower case, or false if none can be for it: what
// Envoy asks for is whatever the client has said.
func certified(asked string) (string, bool) {
	name, is := hostname.Lower(asked)
	if _, err := netip.ParseAddr(name); err == nil {
		return "", false
	}
	return name, is
}
