package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"testing"
)

// What is sent is what was written, also bytes that are no text; the answer comes back, and how it ended.
func TestRaw(t *testing.T) {
	for _, ends := range []bool{true, false} {
		arrived := make(chan string, 1)
		address := startListener(t, func(conn *net.TCPConn, _ int) {
			text, _ := readRequest(conn)
			arrived <- text
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			if ends {
				_ = conn.Close()
			}
			t.Cleanup(func() { _ = conn.Close() }) // it would be closed when it is garbage
		})
		odd := "G\x00T / HTTP/9\r\nHost: a\r\nHost: b\r\n\r\n"
		sent := hex.EncodeToString([]byte(odd))
		result := runFor[rawResult](t, exitDone, "raw", address, "--hex", sent, "--timeout", "300ms")
		if got := <-arrived; got != odd {
			t.Errorf("%q arrived", got)
		}
		if result.Reply != "HTTP/1.1 200 OK\r\n\r\n" || result.Ended != ends {
			t.Errorf("%+v", result)
		}
	}
}

// Byte by byte, what arrives is the same, but not at once.
func TestRawInPieces(t *testing.T) {
	arrived := make(chan []int, 1)
	address := startListener(t, func(conn *net.TCPConn, _ int) {
		var sizes []int
		buffer := make([]byte, 64)
		for sum := 0; sum < 8; {
			size, err := conn.Read(buffer)
			if err != nil {
				break
			}
			sizes, sum = append(sizes, size), sum+size
		}
		arrived <- sizes
		_ = conn.Close()
	})
	_ = runFor[rawResult](t, exitDone, "raw", address, "--hex", "0001020304050607", "--pieces")
	if sizes := <-arrived; len(sizes) < 3 {
		t.Errorf("%v", sizes)
	}
}

// A datagram comes back from an origin, and it is a failure if none does.
func TestRawDatagram(t *testing.T) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	address := socket.LocalAddr().String()
	result := runFor[rawResult](t, exitFailed, "raw", address, "--udp", "--hex", "6869", "--timeout", "100ms")
	if result.Error == nil || result.Error.Kind != kindConnectTimeout {
		t.Errorf("%+v", result)
	}
	var told bytes.Buffer
	go new(origin).sendBack(socket, &printer{writer: &told})
	if result := runFor[rawResult](t, exitDone, "raw", address, "--udp", "--hex", "6869"); result.Reply != "hi" {
		t.Errorf("%+v", result)
	}
	result = runFor[rawResult](t, exitFailed, "raw", closedDatagramPort(t), "--udp", "--hex", "00")
	if result.Error == nil || result.Error.Kind != kindConnectRefused {
		t.Errorf("%+v", result)
	}
}

// Nobody there is a failure, and nonsense is not sent.
func TestRawRefused(t *testing.T) {
	result := runFor[rawResult](t, exitFailed, "raw", closedPort(t), "--hex", "00")
	if result.Error == nil || result.Error.Kind != kindConnectRefused {
		t.Errorf("%+v", result)
	}
	if code, _ := run(t, "raw", closedPort(t), "--hex", "xx"); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
