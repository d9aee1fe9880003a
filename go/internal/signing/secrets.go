package signing

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clawker-fw/internal/statussocket"
)

// The secrets for requests are resources on Envoy's one stream too (`secret:ID`). The client sends all of them at
// once, over a socket that only root can open. They are in the signer's memory, and in a file in memory that the
// supervisor holds (memfd_create(2)), so they outlive the signer and end with the container. Secrets at rest are
// also in a file on the disk, which the supervisor hands down.
//
// Envoy keeps using a removed secret. So a missing or removed one is empty, and Envoy refuses its requests.

// SecretPrefix starts the resource names of secrets.
const SecretPrefix = "secret" + reserved

// secretID matches the rest of the name. Inspected server names have a dot, so agents can't request secrets.
var secretID = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}(#[a-z]{1,16})?$`)

const (
	mostSecrets   = 1000
	longestSecret = 8 << 10
	mostGiven     = mostSecrets * (longestSecret + 256) // bytes
	givingTime    = 5 * time.Second
)

// Giving is a client's message: a key for this conversation, and all secrets by id, unless it is only a query.
type Giving struct {
	Key  []byte            `json:"key"`
	Give map[string]string `json:"give"` // null for a query
	Keep []string          `json:"keep"` // ids of further secrets to keep
	Rest []string          `json:"rest"` // ids of secrets at rest, of both
}

// Held is the signer's answer. A secret's digest is the HMAC-SHA-256 of its id and value under the key, in
// hexadecimal. Nothing in it reveals a secret.
type Held struct {
	Secrets map[string]HeldSecret `json:"secrets"`
	Error   string                `json:"error,omitempty"` // why nothing changed, between fwctl and the signer
}

// NoVersion is the version of a missing or removed secret.
const NoVersion = "none"

// Version returns Envoy's version of a secret, by id, or NoVersion without it.
func (h Held) Version(id string) string { return secret{Given: h.Secrets[id].Given}.version() }

type HeldSecret struct {
	Digest string    `json:"digest"`
	Given  time.Time `json:"given"`
	Rests  bool      `json:"rests"` // also on disk
}

type secret struct {
	Value string    `json:"value"`
	Given time.Time `json:"given"`
	Rests bool      `json:"rests,omitempty"`
}

// version is visible in Envoy, so it reveals nothing about the value.
func (s secret) version() string {
	if s.Given.IsZero() {
		return NoVersion
	}
	return s.Given.UTC().Format(time.RFC3339Nano)
}

type secrets struct {
	now   func() time.Time
	kept  Kept
	mutex sync.Mutex
	all   map[string]secret
	turn  atomic.Uint64 // counts changes
}

// Kept are the JSON files in which secrets outlive the signer. Either may be nil.
type Kept struct {
	Memory *os.File // all secrets, until the container ends
	Disk   *os.File // secrets at rest
}

// Resting is the file with the secrets at rest.
func Resting(root string) string { return filepath.Join(root, "state", "secrets.json") }

// newSecrets restores the former signer's secrets. In a new container, only those at rest remain.
func newSecrets(kept Kept, now func() time.Time) *secrets {
	restored := &secrets{now: now, kept: kept, all: map[string]secret{}}
	left := leftIn(kept.Memory)
	if len(left) == 0 {
		left = leftIn(kept.Disk)
	}
	var all map[string]secret
	if json.Unmarshal(left, &all) == nil && all != nil { // an incomplete file counts as empty
		restored.all = all
	}
	return restored
}

func leftIn(file *os.File) []byte {
	content, _ := io.ReadAll(io.NewSectionReader(file, 0, mostGiven*2)) // a missing file is empty
	return content
}

// leave overwrites the content of a file. It needs no more room than both contents.
func leave(file *os.File, all map[string]secret) error {
	if file == nil {
		return nil
	}
	before, err := file.Stat()
	if err != nil || len(all) == 0 && before.Size() == 0 {
		return err
	}
	content, err := json.Marshal(all)
	if err != nil {
		return err
	}
	content = append(content, '\n')
	blanks := bytes.Repeat([]byte{' '}, max(0, int(before.Size())-len(content)))
	if _, err := file.WriteAt(append(content, blanks...), 0); err != nil {
		return errors.Join(err, file.Truncate(0)) // rather empty than a mixture
	}
	return cmp.Or(file.Sync(), file.Truncate(int64(len(content))))
}

func (s *secrets) of(asked string) (secret, bool) {
	id, ok := strings.CutPrefix(asked, SecretPrefix)
	if !ok || !secretID.MatchString(id) {
		return secret{}, false
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.all[id], true
}

func (s *secrets) issue(asked string, _ time.Time) (issued, error) {
	current, ok := s.of(asked)
	if !ok {
		return issued{}, errRefused
	}
	return issued{genericSecret(asked, current.Value), current.version(), stamp{issuer: current.version()}}, nil
}

func (s *secrets) isCurrent(asked string, before stamp, _ time.Time) bool {
	current, ok := s.of(asked)
	return ok && current.version() == before.issuer
}

func (s *secrets) count() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.all)
}

func (s *secrets) take(giving Giving) (Held, error) {
	if len(giving.Key) < sha256.Size {
		return Held{}, errors.New("the key is too short")
	}
	if err := verifyGiven(giving.Give); err != nil {
		return Held{}, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if giving.Give != nil {
		if err := s.replace(giving); err != nil {
			return Held{}, err
		}
	}
	held := Held{Secrets: map[string]HeldSecret{}}
	for id, entry := range s.all {
		sum := hmac.New(sha256.New, giving.Key)
		fmt.Fprintf(sum, "%s\x00%s", id, entry.Value)
		held.Secrets[id] = HeldSecret{hex.EncodeToString(sum.Sum(nil)), entry.Given, entry.Rests}
	}
	return held, nil
}

func verifyGiven(all map[string]string) error {
	if len(all) > mostSecrets {
		return fmt.Errorf("%d secrets exceed the limit of %d", len(all), mostSecrets)
	}
	for id, value := range all {
		if !secretID.MatchString(id) {
			return fmt.Errorf("%q is not a secret's id", id)
		}
		if value == "" || len(value) > longestSecret || value != strings.TrimSpace(value) || strings.ContainsFunc(value, isNoHeader) {
			return fmt.Errorf("the secret %s can be in no header", id)
		}
	}
	return nil
}

func isNoHeader(character rune) bool { return character < ' ' || character > '~' }

// replace replaces the secrets. An unchanged one keeps its version. If they can't be stored, they are in force
// anyway.
func (s *secrets) replace(giving Giving) error {
	fresh := map[string]secret{}
	for _, id := range giving.Keep {
		if before, ok := s.all[id]; ok {
			fresh[id] = before
		}
	}
	for id, value := range giving.Give {
		fresh[id] = secret{Value: value, Given: s.now().UTC()}
		if before, ok := s.all[id]; ok && before.Value == value {
			fresh[id] = before
		}
	}
	resting := map[string]secret{}
	for id, entry := range fresh {
		entry.Rests = slices.Contains(giving.Rest, id)
		if fresh[id] = entry; entry.Rests {
			resting[id] = entry
		}
	}
	if maps.Equal(fresh, s.all) {
		return nil
	}
	s.all = fresh
	s.turn.Add(1)
	// Both are written, even if one fails: neither may keep a removed secret.
	var failed []error
	if err := leave(s.kept.Disk, resting); err != nil {
		failed = append(failed, fmt.Errorf("the secrets are in force, but will be lost when the container ends: %w", err))
	}
	if err := leave(s.kept.Memory, fresh); err != nil {
		failed = append(failed, fmt.Errorf("the secrets are in force, but will be lost when the signer ends: %w", err))
	}
	return errors.Join(failed...)
}

func (s *secrets) converse(connection net.Conn) {
	_ = connection.SetDeadline(time.Now().Add(givingTime))
	var giving Giving
	answer, err := Held{}, json.NewDecoder(io.LimitReader(connection, mostGiven)).Decode(&giving)
	if err == nil {
		answer, err = s.take(giving)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(connection).Encode(answer) // the client may be gone
}

// ReadGiving reads a client's message of this size. Errors never repeat its content.
func ReadGiving(size int64, from io.Reader) (Giving, error) {
	var giving Giving
	if size <= 0 || size > mostGiven {
		return giving, fmt.Errorf("invalid size of secrets: %d bytes", size)
	}
	if err := json.NewDecoder(io.LimitReader(from, size)).Decode(&giving); err != nil {
		return Giving{}, errors.New("invalid message with secrets")
	}
	return giving, nil
}

// GiveSecrets sends a client's message to the signer in this folder, and returns the answer.
func GiveSecrets(folder string, giving Giving) (Held, error) {
	var answer Held
	if err := statussocket.Ask(filepath.Join(folder, secretsSocket), 2*givingTime, giving, &answer); err != nil {
		return Held{}, fmt.Errorf("the signer does not answer: %w", err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}
