package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
)

const (
	// leafLife is how long a certificate is valid, unless its intermediate ends before.
	leafLife = 7 * 24 * time.Hour

	// skew is how far the clock of an agent may be behind.
	skew = time.Hour

	// renewedAfter is the part of its life, in thirds, after which a certificate is replaced.
	renewedAfter = 2
)

// intermediate signs certificates for the names below those that it is constrained to.
type intermediate struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       []byte // its certificate, and perhaps more, as PEM: what follows a leaf
	id          string // of its certificate
}

// authority are the intermediates, by each name that they are constrained to.
type authority struct{ below map[string]*intermediate }

// parseAuthority parses hot/signing/intermediates.json. All of it must be usable: one that is not constrained to names
// would be another kind of authority than the one that agents were told of.
func parseAuthority(content []byte) (*authority, error) {
	var file struct {
		Intermediates []struct {
			Certificate string `json:"certificate"` // PEM, perhaps followed by those between it and its root
			Key         string `json:"key"`         // PEM, PKCS #8
		} `json:"intermediates"`
	}
	if err := hotfile.Unmarshal(content, &file); err != nil {
		return nil, err
	}
	found := &authority{map[string]*intermediate{}}
	for number, each := range file.Intermediates {
		one, err := newIntermediate([]byte(each.Certificate), []byte(each.Key))
		if err != nil {
			return nil, fmt.Errorf("intermediate %d: %w", number, err)
		}
		for _, name := range one.certificate.PermittedDNSDomains {
			if !hostname.Is(name) {
				return nil, fmt.Errorf("intermediate %d is for %q, which is no host name in lower case", number, name)
			}
			if other := found.below[name]; other == nil || one.certificate.NotAfter.After(other.certificate.NotAfter) {
				found.below[name] = one
			}
		}
	}
	return found, nil
}

func newIntermediate(chain, key []byte) (*intermediate, error) {
	first, _ := pem.Decode(chain)
	private, _ := pem.Decode(key)
	if first == nil || private == nil {
		return nil, errors.New("its certificate or its key is no PEM")
	}
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	if err != nil {
		return nil, errors.New("its key can't be read") // without what the error may say of it
	}
	signer, is := parsed.(*ecdsa.PrivateKey)
	switch {
	case !is || !signer.PublicKey.Equal(certificate.PublicKey):
		return nil, errors.New("its key is another one than its certificate's")
	case !certificate.IsCA || !certificate.MaxPathLenZero:
		return nil, errors.New("it is no authority for certificates of servers alone")
	case !certificate.PermittedDNSDomainsCritical || len(certificate.PermittedDNSDomains) == 0:
		return nil, errors.New("it is not constrained to names")
	}
	sum := sha256.Sum256(certificate.Raw)
	return &intermediate{certificate, signer, chain, hex.EncodeToString(sum[:])}, nil
}

func (a *authority) covering(name string) *intermediate {
	if a == nil {
		return nil
	}
	for above := range hostname.Around(name) {
		if found := a.below[above]; found != nil {
			return found
		}
	}
	return nil
}

type leaf struct {
	chain, key  []byte // PEM
	serial      string
	begins, due time.Time // due is when it should be replaced, or the zero time if only another intermediate could
}

// mint returns a certificate for a name, which must be one that it is constrained to.
func (i *intermediate) mint(name string, now time.Time) (leaf, error) {
	issuer := i.certificate
	if now.Before(issuer.NotBefore) || !now.Before(issuer.NotAfter) {
		return leaf{}, fmt.Errorf("its intermediate is valid from %s to %s", issuer.NotBefore.Format(time.RFC3339), issuer.NotAfter.Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return leaf{}, err
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
		return leaf{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return leaf{}, err
	}
	return leaf{
		slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), i.chain),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		serial.Text(16), template.NotBefore, due,
	}, nil
}
