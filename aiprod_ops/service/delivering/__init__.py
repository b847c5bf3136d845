"""Sending webhooks: deliveries that are due are leased, signed, sent and answered for, by any number of workers."""
