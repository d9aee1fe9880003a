package page

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"clawker-fw/internal/statussocket"
)

// The page's server asks the other sibling's recorder over TCP, at a port that the packet filter opens for Envoy alone: one
// line with the agent's address and its hardware address, answered with what is known about it, as JSON.

const (
	// patience is how long a question may take, on both sides.
	patience = time.Second
	// mostAnswered is how many questions are answered at once. Further ones wait.
	mostAnswered = 16

	longestQuestion = 64
	// longestTold bounds what an answer may have: more than mostRefusals with the longest texts.
	longestTold = 1 << 18
)

// Tell answers questions about agents from those addresses that may ask, for ever.
func (s *Store) Tell(listener net.Listener, askers []netip.Addr) error {
	statussocket.Serve(listener, mostAnswered, func(connection net.Conn) {
		from, err := netip.ParseAddrPort(connection.RemoteAddr().String())
		if err == nil && slices.Contains(askers, from.Addr().Unmap()) {
			_ = s.answer(connection) // who has asked sees that there is no answer
		}
	})
	return net.ErrClosed
}

func (s *Store) answer(connection net.Conn) error {
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	question, err := bufio.NewReader(io.LimitReader(connection, longestQuestion)).ReadString('\n')
	if err != nil {
		return err
	}
	source, hardware, err := readQuestion(question)
	if err != nil {
		return err
	}
	return json.NewEncoder(connection).Encode(s.Told(source, hardware))
}

func question(source netip.Addr, hardware string) string {
	return source.String() + " " + hardware + "\n"
}

func readQuestion(text string) (netip.Addr, string, error) {
	address, hardware, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	source, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, "", err
	}
	read, err := net.ParseMAC(hardware)
	return source, read.String(), err
}

// other is the other sibling's recorder.
type other struct {
	own   netip.Addr // the address that may ask
	place netip.AddrPort
}

func (o other) ask(source netip.Addr, hardware string) (told, error) {
	dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.own, 0))}
	connection, err := dialer.Dial("tcp4", o.place.String())
	if err != nil {
		return told{}, err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return told{}, err
	}
	if _, err := io.WriteString(connection, question(source, hardware)); err != nil {
		return told{}, err
	}
	var answer told
	if err := json.NewDecoder(io.LimitReader(connection, longestTold)).Decode(&answer); err != nil {
		return told{}, err
	}
	if answer.Since.IsZero() {
		return told{}, errors.New("the answer does not say since when")
	}
	return answer, nil
}
