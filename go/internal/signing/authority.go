package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
)

const (
	// leafLife is the validity of a certificate, unless its intermediate ends earlier.
	leafLife = 7 * 24 * time.Hour

	// skew is the tolerance for an agent's slow clock.
	skew = time.Hour

	// renewedAfter is the renewal time of a certificate, in thirds of its life.
	renewedAfter = 2
)

type intermediate struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       []byte // PEM to append to a leaf: its certificate, and perhaps more
	id          string // of its certificate
}

// authority maps names to the intermediates for them and for all names below.
type authority map[string]*intermediate

// parseAuthority parses hot/signing/intermediates.json. All of it must be usable: an intermediate without name
// constraints is more powerful than agents were told.
func parseAuthority(content []byte) (authority, error) {
	var file struct {
		Intermediates []struct {
			Certificate string `json:"certificate"` // PEM, perhaps followed by the CAs up to its root
			Key         string `json:"key"`         // PEM, PKCS #8
		} `json:"intermediates"`
	}
	if err := hotfile.Unmarshal(content, &file); err != nil {
		return nil, err
	}
	intermediates := authority{}
	for number, pair := range file.Intermediates {
		one, err := newIntermediate([]byte(pair.Certificate), []byte(pair.Key))
		if err != nil {
			return nil, fmt.Errorf("intermediate %d: %w", number, err)
		}
		for _, name := range one.certificate.PermittedDNSDomains {
			if !hostname.Is(name) {
				return nil, fmt.Errorf("intermediate %d is for %q, which is not a host name in lower case", number, name)
			}
			if other := intermediates[name]; other == nil || one.certificate.NotAfter.After(other.certificate.NotAfter) {
				intermediates[name] = one
			}
		}
	}
	return intermediates, nil
}

func newIntermediate(chain, key []byte) (*intermediate, error) {
	first, _ := pem.Decode(chain)
	private, _ := pem.Decode(key)
	if first == nil || private == nil {
		return nil, errors.New("its certificate or key is not PEM")
	}
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	if err != nil {
		return nil, errors.New("its key is unreadable") // without the parser's words about the key
	}
	signer, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || !signer.PublicKey.Equal(certificate.PublicKey):
		return nil, errors.New("its key does not match its certificate")
	case !certificate.IsCA || !certificate.MaxPathLenZero:
		return nil, errors.New("it is no authority for certificates of servers alone")
	case !certificate.PermittedDNSDomainsCritical || len(certificate.PermittedDNSDomains) == 0:
		return nil, errors.New("it is not constrained to names")
	}
	return &intermediate{certificate, signer, chain, fmt.Sprintf("%x", sha256.Sum256(certificate.Raw))}, nil
}

func (a authority) covering(name string) *intermediate {
	for above := range hostname.Around(name) {
		if covering := a[above]; covering != nil {
			return covering
		}
	}
	return nil
}

// mint returns a certificate for a name within its constraints, under the requested resource name.
func (i *intermediate) mint(asked, name string, now time.Time) (issued, error) {
	issuer := i.certificate
	if now.Before(issuer.NotBefore) || !now.Before(issuer.NotAfter) {
		begins, ends := issuer.NotBefore.Format(time.RFC3339), issuer.NotAfter.Format(time.RFC3339)
		return issued{}, fmt.Errorf("its intermediate is valid from %s to %s", begins, ends)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issued{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return issued{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // positive (RFC 5280, section 4.1.2.2)
		NotBefore:    now.Add(-skew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{name},
	}
	due := now.Add(leafLife * renewedAfter / 3)
	if !template.NotAfter.Before(issuer.NotAfter) {
		template.NotAfter, due = issuer.NotAfter, time.Time{}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), i.key)
	if err != nil {
		return issued{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return issued{}, err
	}
	chain := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), i.chain)
	secret := tlsCertificate(asked, chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return issued{secret, serial.Text(16), stamp{issuer: i.id, begins: template.NotBefore, due: due}}, nil
}

type source interface {
	// issue returns the resource for a name, or an error: errRefused if there must be none.
	issue(asked string, now time.Time) (issued, error)
	// isCurrent reports whether Envoy should keep using an issued resource.
	isCurrent(asked string, before stamp, now time.Time) bool
}

// issued is a resource: a Secret in Envoy's form, and the remembered facts. Keys are not remembered.
type issued struct {
	secret  []byte
	version string
	stamp
}

// stamp is the origin of a resource and its times. due is its renewal time: the zero time if it never changes, or
// only another intermediate could renew it.
type stamp struct {
	issuer      string
	begins, due time.Time
	rule        string // of a certificate's name
}

var errRefused = errors.New("no rule inspects it")

// reserved separates the kind from the name in the resource names of secrets. Host names can't contain it.
const reserved = ":"

type sources struct{ certificates, secrets source }

func (s sources) of(asked string) source {
	if strings.Contains(asked, reserved) {
		return s.secrets
	}
	return s.certificates
}

type certificates struct {
	names         *hotfile.File[inspected]
	intermediates *hotfile.File[authority]
}

var errUncovered = errors.New("no intermediate may sign for it")

func (c certificates) issuer(asked string) (signer *intermediate, name, rule string, err error) {
	name, ok := certified(asked)
	if ok {
		rule = c.names.Value().rule(name)
	}
	if rule == "" {
		return nil, "", "", errRefused
	}
	if signer = c.intermediates.Value().covering(name); signer == nil {
		return nil, "", "", errUncovered
	}
	return signer, name, rule, nil
}

func (c certificates) issue(asked string, now time.Time) (issued, error) {
	issuer, name, rule, err := c.issuer(asked)
	if err != nil {
		return issued{}, err
	}
	made, err := issuer.mint(asked, name, now)
	made.rule = rule
	return made, err
}

// isCurrent reports whether the certificate is valid, not due, and from the current intermediate. After a clock
// was set back, one that isn't valid yet is replaced too.
func (c certificates) isCurrent(asked string, before stamp, now time.Time) bool {
	issuer, _, _, err := c.issuer(asked)
	return err == nil && issuer.id == before.issuer && !now.Before(before.begins) && (before.due.IsZero() || now.Before(before.due))
}

// inspected has the inspected names and subtrees. A subtree includes its own name.
type inspected struct{ names, subtrees map[string]struct{} }

func parseNames(content []byte) (parsed inspected, err error) {
	var file struct {
		Names    []string `json:"names"`
		Subtrees []string `json:"subtrees"`
	}
	if err := hotfile.Unmarshal(content, &file); err != nil {
		return parsed, err
	}
	if parsed.names, err = setOf(file.Names); err != nil {
		return parsed, err
	}
	parsed.subtrees, err = setOf(file.Subtrees)
	return parsed, err
}

func (i inspected) rule(name string) string {
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
	set := make(map[string]struct{}, len(names))
	for _, name := range names {
		if !hostname.Is(name) {
			return nil, fmt.Errorf("%q is not a host name in lower case", name)
		}
		set[name] = struct{}{}
	}
	return set, nil
}

// certified returns a requested name in lower case, or false if it can't have a certificate. Clients choose these
// names.
func certified(asked string) (string, bool) {
	name, ok := hostname.Lower(asked)
	if _, err := netip.ParseAddr(name); err == nil {
		return "", false
	}
	return name, ok
}
