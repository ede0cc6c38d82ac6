"""The ways to devices that are away: Web Push, APNs and FCM."""
