package signing

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
)

type source interface {
	// issue returns what Envoy shall use under a name, or why there is nothing: errRefused if there must not be.
	issue(asked string, now time.Time) (issued, error)
	// isCurrent reports whether what was issued under a name is still what Envoy shall use.
	isCurrent(asked string, before stamp, now time.Time) bool
}

// issued is a resource: the Secret as Envoy reads it, and what is remembered of it. Keys are not.
type issued struct {
	secret  []byte
	version string
	stamp
}

// stamp says of a resource who has issued it, and for what time it is good. due is zero if time does not change it.
type stamp struct {
	issuer      string
	begins, due time.Time
	rule        string // whose name it is for, of a certificate
}

var errRefused = errors.New("no rule inspects it")

// reserved separates the kind of a resource from its name, in names that are not those of certificates. No host name has it.
const reserved = ":"

// sources chooses the source of a resource by its name.
type sources struct{ certificates, secrets source }

func (s sources) of(asked string) source {
	if strings.Contains(asked, reserved) {
		return s.secrets
	}
	return s.certificates
}

type certificates struct {
	names         *hotfile.File[*inspected]
	intermediates *hotfile.File[*authority]
}

var errUncovered = errors.New("no intermediate may sign for it")

// issuer returns who signs for a name, the name in lower case, and its rule.
func (c certificates) issuer(asked string) (found *intermediate, name, rule string, err error) {
	name, is := certified(asked)
	if is {
		rule = c.names.Value().rule(name)
	}
	if rule == "" {
		return nil, "", "", errRefused
	}
	if found = c.intermediates.Value().covering(name); found == nil {
		return nil, "", "", errUncovered
	}
	return found, name, rule, nil
}

func (c certificates) issue(asked string, now time.Time) (issued, error) {
	issuer, name, rule, err := c.issuer(asked)
	if err != nil {
		return issued{}, err
	}
	made, err := issuer.mint(name, now)
	if err != nil {
		return issued{}, err
	}
	return issued{tlsCertificate(asked, made.chain, made.key), made.serial, stamp{issuer.id, made.begins, made.due, rule}}, nil
}

// isCurrent reports whether the certificate is from the intermediate that signs now, and not due. If somebody has set the
// clock back, one that is not valid yet is replaced as well.
func (c certificates) isCurrent(asked string, before stamp, now time.Time) bool {
	issuer, _, _, err := c.issuer(asked)
	return err == nil && issuer.id == before.issuer && !now.Before(before.begins) && (before.due.IsZero() || now.Before(before.due))
}

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
