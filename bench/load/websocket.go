package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// What a client needs of RFC 6455 and no more: small messages in one piece, nothing compressed, and
// a mask of zeros, which leaves the text as it is.

const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
)

func upgradeRequest(path, headers string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + headers + "\r\n")
}

// frame appends a message of a client.
func frame(to []byte, opcode byte, payload []byte) []byte {
	to = append(to, 0x80|opcode)
	switch n := len(payload); {
	case n < 126:
		to = append(to, 0x80|byte(n))
	case n < 1<<16:
		to = append(to, 0x80|126, byte(n>>8), byte(n))
	default:
		to = append(to, 0x80|127)
		to = binary.BigEndian.AppendUint64(to, uint64(n))
	}
	to = append(to, 0, 0, 0, 0)
	return append(to, payload...)
}

// parse finds the first frame of data; size is 0 while it is not complete. A payload that is masked
// is unmasked where it is.
func parse(data []byte) (opcode byte, payload []byte, size int, err error) {
	if len(data) < 2 {
		return 0, nil, 0, nil
	}
	if data[0]&0x80 == 0 || data[0]&0x70 != 0 {
		return 0, nil, 0, fmt.Errorf("a frame in pieces or with an extension: %x", data[0])
	}
	head, length := 2, int(data[1]&0x7F)
	switch length {
	case 126:
		if len(data) < 4 {
			return 0, nil, 0, nil
		}
		head, length = 4, int(binary.BigEndian.Uint16(data[2:]))
	case 127:
		if len(data) < 10 {
			return 0, nil, 0, nil
		}
		head, length = 10, int(binary.BigEndian.Uint64(data[2:]))
		if length < 0 || length > 1<<30 {
			return 0, nil, 0, errors.New("a frame that is too long")
		}
	}
	masked := data[1]&0x80 != 0
	if masked {
		head += 4
	}
	size = head + length
	if len(data) < size {
		return 0, nil, 0, nil
	}
	payload = data[head:size]
	if masked {
		mask := data[head-4 : head]
		if mask[0]|mask[1]|mask[2]|mask[3] != 0 {
			for i := range payload {
				payload[i] ^= mask[i&3]
			}
		}
	}
	return data[0] & 0xF, payload, size, nil
}

// closing says what a close frame says.
func closing(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed")
	}
	return fmt.Errorf("closed: %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}

// upgraded takes the answer to an upgrade; size is 0 while it is not complete.
func upgraded(data []byte) (size int, err error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	if !bytes.HasPrefix(data, []byte("HTTP/1.1 101")) {
		status, body := data[:bytes.IndexByte(data, '\r')], data[end+4:]
		if len(body) > 300 {
			body = body[:300]
		}
		return 0, fmt.Errorf("refused: %s %s", status, body)
	}
	return end + 4, nil
}
