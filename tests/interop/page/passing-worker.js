// Stands where livekit-client's encryption worker does, says that it encrypts, and passes every frame on as it is.

'use strict';

self.onmessage = ({data: message}) => {
  if (message.kind === 'init') self.postMessage({kind: 'initAck', data: {enabled: true}});
  if (message.kind === 'enable') self.postMessage({kind: 'enable', data: message.data});
  if (message.kind === 'encode') message.data.readableStream.pipeTo(message.data.writableStream);
};
self.onrtctransform = ({transformer}) => transformer.readable.pipeTo(transformer.writable);
